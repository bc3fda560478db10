from itertools import pairwise

import pytest

from memscope.errors import UsageError
from memscope.techniques.activations.layers import layer_calls, list_computed_again, main_list
from memscope.techniques.program import Program
from tests.techniques.programs import WIDTH, generate, train


def test_layers_are_found_in_order_with_what_goes_in():
    program = Program.of(train())
    layers = main_list(program, "t")
    assert layers == "layers"
    for each in program.passes:
        calls = layer_calls(program, each, layers)
        assert [call.index for call in calls] == [0, 1, 2, 3]
        assert {int(program.size_bytes[call.input_row]) for call in calls} == {8 * 64 * WIDTH * 4}
        assert all(call.begin < call.end for call in calls)
        assert all(a.end <= b.begin for a, b in pairwise(calls))


def test_a_program_that_saves_nothing_has_no_list_of_layers():
    with pytest.raises(UsageError, match="no list of layers with saved activations"):
        main_list(Program.of(generate()), "t")


def test_layers_that_save_something_are_not_computed_again():
    assert list_computed_again(Program.of(train())) is None
    assert list_computed_again(Program.of(generate())) is None
