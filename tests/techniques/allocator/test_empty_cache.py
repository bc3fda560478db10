from pathlib import Path

import pytest

import memscope
from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, train

TRACE = Path(__file__).resolve().parents[3] / "traces" / "tiny-gpt2-generate.memscope"


def test_segments_are_given_back_as_by_the_call():
    assert_as_changed(train(), "empty-cache:each-step", train(empties=True), within=0)


def test_another_time_than_each_step_is_refused():
    with pytest.raises(UsageError, match="it is known as empty-cache:each-step"):
        apply(train(), "empty-cache:sometimes")


def test_a_program_without_steps_is_refused():
    with pytest.raises(UsageError, match="does not tell its steps"):
        apply(memscope.load(TRACE).devices[0], "empty-cache:each-step")
