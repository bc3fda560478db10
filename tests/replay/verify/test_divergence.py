"""How a divergence is worded."""

from memscope.replay.verify.divergence import Divergence


def test_divergence_names_its_event_or_the_final_state():
    assert str(Divergence(12_345, "one", "two", "why")) == "event 12,345: why; recorded one, replayed two"
    assert str(Divergence(-1, "one", "two", "why")).startswith("final state: why")
