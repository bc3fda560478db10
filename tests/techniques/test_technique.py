import pytest

from memscope.errors import UsageError
from memscope.techniques.program import Program
from memscope.techniques.technique import DoesNotApplyError, need_training, no_arguments, whole_number
from tests.techniques.programs import generate, train


def test_a_number_stands_alone_or_after_its_name():
    assert whole_number("t", "4", "every") == whole_number("t", "every=4", "every") == 4


@pytest.mark.parametrize("text", ["", "every=", "every=-1", "of=4", "4.5", "٣"])
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="is not every=N"):
        whole_number("t", text, "every")


def test_a_technique_without_arguments_takes_none():
    no_arguments("t", "")
    with pytest.raises(UsageError, match="t takes nothing after its name, not 'x'"):
        no_arguments("t", "x")


def test_training_is_told_from_generation():
    need_training(Program.of(train()), "t")
    with pytest.raises(DoesNotApplyError, match="record a training step"):
        need_training(Program.of(generate()), "t")
