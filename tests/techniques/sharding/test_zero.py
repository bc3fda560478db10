import pytest

from memscope.errors import UsageError
from memscope.techniques.sharding._parameters import Parameter
from memscope.techniques.sharding.zero import dealt
from memscope.techniques.whatif import what_if
from tests.techniques.programs import apply, assert_as_changed, train
from tests.techniques.sharding.ranks import rank


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(("n_ranks", "batch"), [(4, (8, 64)), (3, (1, 8))])
def test_a_stage_takes_what_a_truly_sharded_program_takes(stage, n_ranks, batch):
    assert_as_changed(train(*batch), f"zero:{stage}:ranks={n_ranks}", rank(f"zero:{stage}", n_ranks, *batch))


def test_the_third_stage_is_fsdp2():
    assert apply(train(), "zero:3:ranks=4").peaks == apply(train(), "fsdp2:ranks=4").peaks


def test_parameters_are_dealt_out_from_the_largest_to_the_rank_with_least():
    sizes = {"a": 5, "b": 9, "c": 4, "d": 1}
    parameters = [Parameter(name, 0, (n,), 4 * n, True) for name, n in sizes.items()]
    # b: 9 | 0, a: 9 | 5, c: 9 | 9, and of two alike the first.
    assert [each.name for each in dealt(parameters, 2)] == ["b", "d"]


@pytest.mark.parametrize("text", ["zero", "zero:4:ranks=2", "zero:ranks=4"])
def test_what_is_no_stage_is_refused(text):
    with pytest.raises(UsageError, match="the stages are 1, 2 and 3"):
        apply(train(), text)


@pytest.mark.parametrize("other", ["zero:2:ranks=4", "fsdp2:ranks=8"])
def test_a_program_is_sharded_in_one_way(other):
    with pytest.raises(UsageError, match="a program is sharded in one way"):
        what_if(train(), ["zero:1:ranks=4", other])
