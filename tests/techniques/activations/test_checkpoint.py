import pytest

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, generate, train


@pytest.mark.parametrize("every", [1, 2])
def test_layers_are_computed_again_as_in_a_checkpointed_program(every):
    large = train(32, 128)
    assert apply(large, f"checkpoint:every={every}").saved_bytes > 0
    assert_as_changed(large, f"checkpoint:every={every}", train(32, 128, every=every), within=0.02)


def test_the_work_is_the_layers_share_of_a_third():
    (cost,) = apply(train(), "checkpoint:every=1").costs
    layers, head = 4 * 8 * 512 * 512, 5000 * 512
    assert cost.recomputed_frac == pytest.approx(layers / (layers + head) / 3)


def test_a_program_that_trains_nothing_is_refused():
    with pytest.raises(UsageError, match="no forward pass with a backward pass"):
        apply(generate(), "checkpoint:every=1")


@pytest.mark.parametrize("text", ["checkpoint", "checkpoint:every=0", "checkpoint:each=1", "checkpoint:every=x"])
def test_what_is_no_number_of_layers_is_refused(text):
    with pytest.raises(UsageError, match="is not every=N with a whole number of at least 1"):
        apply(train(), text)
