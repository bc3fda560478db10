import pytest

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, train


@pytest.mark.parametrize("n_parts", [2, 4])
def test_parts_are_as_those_of_a_program_that_accumulates(n_parts):
    large = train(32, 128)
    assert apply(large, f"micro-batch:{n_parts}").saved_bytes > 0
    assert_as_changed(large, f"micro-batch:{n_parts}", train(32, 128, n_parts=n_parts), within=0.02)


def test_more_parts_than_samples_are_refused():
    with pytest.raises(UsageError, match=r"micro-batch:9 does not apply: the recorded batch has 8 samples; ask for at"):
        apply(train(), "micro-batch:9")
    with pytest.raises(UsageError, match="the recorded batch has 1 sample;"):
        apply(train(1, 8), "micro-batch:2")


def test_one_part_is_the_batch():
    found = apply(train(), "micro-batch:1")
    assert (found.saved_bytes, found.note) == (0, "the batch is one part already")
