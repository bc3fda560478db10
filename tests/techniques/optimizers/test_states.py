import pytest

from memscope.errors import UsageError
from memscope.techniques.optimizers._states import live_temporary_bytes, need_steps, states_of
from memscope.techniques.program import Program
from tests.techniques.programs import generate, train


def test_each_parameter_has_its_states_in_the_optimizers_order():
    states = states_of(Program.of(train()), "t")
    assert [state.parameter for state in states[:3]] == ["embed.weight", "layers.0.norm.weight", "layers.0.norm.bias"]
    assert set(states[0].rows) == {"exp_avg", "exp_avg_sq"}
    assert (states[0].shape, states[0].itemsize, states[0].n_elements) == ((5000, 512), 4, 5000 * 512)


def test_foreach_makes_a_temporary_of_each_parameter_at_once():
    program = Program.of(train())
    assert live_temporary_bytes(program) == sum(4 * state.n_elements for state in states_of(program, "t"))


def test_a_program_without_steps_is_refused():
    with pytest.raises(UsageError, match="t does not apply: no optimizer makes a step in this trace"):
        need_steps(Program.of(generate()), "t")
