import pytest

from memscope.errors import UsageError
from memscope.techniques.whatif import what_if
from tests.techniques.programs import apply, assert_as_changed, generate, train
from tests.techniques.sharding.ranks import rank


@pytest.mark.parametrize(("n_ranks", "batch"), [(4, (8, 64)), (2, (32, 128)), (3, (1, 8))])
def test_shards_and_buffers_are_those_of_a_sharded_program(n_ranks, batch):
    assert_as_changed(train(*batch), f"fsdp2:ranks={n_ranks}", rank("fsdp2", n_ranks, *batch))


def test_weights_go_over_the_links_twice_and_gradients_once():
    (cost,) = apply(train(), "fsdp2:ranks=4").costs
    layer = 512 + 512 + 4 * 512 * 512 + 4 * 512 + 4 * 512 * 512 + 512
    assert cost.moved_bytes_per_step == 3 * 4 * (2 * 5000 * 512 + 4 * layer) * 3 // 4


def test_it_goes_with_other_techniques():
    together = apply(train(32, 128), "fsdp2:ranks=4").peaks
    both = what_if(train(32, 128), ["checkpoint:every=1", "fsdp2:ranks=4"]).together
    assert both is not None
    assert both.peaks.allocated_bytes < together.allocated_bytes
    assert both.costs[0].recomputed_frac is not None


def test_a_program_that_is_sharded_already_is_refused():
    with pytest.raises(UsageError, match="one rank of several already"):
        apply(rank("fsdp2", 4), "fsdp2:ranks=4")


def test_a_program_that_adds_gradients_up_is_refused():
    with pytest.raises(UsageError, match="a backward pass has none of its own"):
        apply(train(n_parts=2), "fsdp2:ranks=4")


def test_a_program_that_trains_nothing_is_refused():
    with pytest.raises(UsageError, match="no forward pass with a backward pass"):
        apply(generate(), "fsdp2:ranks=4")


@pytest.mark.parametrize("text", ["fsdp2", "fsdp2:ranks=1", "fsdp2:ranks=x", "fsdp2:n=4"])
def test_what_is_no_number_of_ranks_is_refused(text):
    with pytest.raises(UsageError, match="is not ranks=N with a whole number of at least 2"):
        apply(train(), text)
