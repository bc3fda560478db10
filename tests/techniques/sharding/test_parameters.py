from dataclasses import replace

import numpy as np
import pytest

from memscope.errors import UsageError
from memscope.techniques.program import NewRows, Program
from memscope.techniques.sharding._parameters import Parameter, built_in_shards, in_shards, parameters_of
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from tests.techniques.programs import train


def test_parameters_are_known_with_shape_and_size():
    found = {each.name: each for each in parameters_of(Program.of(train()), "fsdp2")}
    assert len(found) == 2 + 4 * 6
    assert found["head.weight"].shape == (5000, 512)
    assert found["head.weight"].size_bytes == 4 * 5000 * 512
    assert all(each.is_trained for each in found.values())


@pytest.mark.parametrize(("shape", "n_ranks", "rows"), [((10, 3), 4, 3), ((2, 3), 4, 1), ((), 4, None)])
def test_a_shard_is_as_many_rows_as_the_fullest_rank_has(shape, n_ranks, rows):
    n_bytes = 4
    for n in shape:
        n_bytes *= n
    shard = Parameter("w", 0, shape, n_bytes, True).shard_bytes(n_ranks)
    assert shard == (4 if rows is None else rows * 3 * 4)


def test_weights_states_and_temporaries_of_steps_are_sharded():
    program = Program.of(train())
    parameters = parameters_of(program, "fsdp2")
    changed = in_shards(program, parameters, 4)
    for category, times in ((Category.WEIGHTS, 1), (Category.OPTIMIZER_STATE, 2)):
        kept = changed.of_category(category) & (changed.begin < changed.passes[0].step_end)
        # Every first dimension of this model can be divided by four.
        assert 4 * changed.size_bytes[kept].sum() == times * sum(each.size_bytes for each in parameters)


def test_parameters_that_are_let_go_of_when_the_program_ends_are_known():
    program = Program.of(train())
    ends = np.full(len(program), program.passes[-1].step_end + 1, np.int64)
    ended = program.freed_at(program.of_category(Category.WEIGHTS), ends)
    assert parameters_of(ended, "fsdp2") == parameters_of(program, "fsdp2")


def test_a_trace_that_does_not_know_shapes_is_refused():
    program = Program.of(train())
    unknown = replace(program, tensor_id=np.full(len(program), NONE_ID, np.int64))
    with pytest.raises(UsageError, match="does not say of what shape the parameters are"):
        parameters_of(unknown, "fsdp2")


def test_what_only_building_a_model_made_is_left_out():
    program = Program.of(train())
    first = program.passes[0].forward
    extra = NewRows.of([(first - 200, first - 100, 1 << 20, 0)], Category.TEMPORARIES)
    assert built_in_shards(program.with_rows(extra)).is_made.sum() == program.is_made.sum()
