import pytest

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, generate, peaks, train


@pytest.mark.parametrize("batch", [(8, 64), (1, 8)])
def test_what_is_saved_lies_on_the_host_as_in_a_program_that_puts_it_there(batch):
    assert_as_changed(train(*batch), "offload:activations", train(*batch, saves_on_host=True))


def test_it_saves_what_layers_keep_where_they_are_most():
    # Reserved memory is not compared: small blocks are cut out of the logits' in another order.
    found = apply(train(32, 128), "offload:activations")
    assert found.saved_allocated_bytes > 200 << 20
    assert found.peaks.allocated_bytes == peaks(train(32, 128, saves_on_host=True)).allocated_bytes


def test_what_is_moved_is_what_is_saved_and_the_matrices_of_products_twice():
    n_tokens, matrices = 8 * 64, 5000 * 512 + 4 * 2 * 4 * 512 * 512
    # of a layer: what goes into the norm, and its statistics, into both products, and into the activation
    layer = n_tokens * (512 + 2 + 512 + 4 * 512 + 4 * 512)
    outside = n_tokens * (512 + 5000)  # what goes into the head, and the logarithms; the loss keeps a number more
    (cost,) = apply(train(), "offload:activations").costs
    assert cost.moved_bytes_per_step == pytest.approx(2 * 4 * (4 * layer + outside + matrices), rel=0.01)


def test_a_program_that_trains_nothing_is_refused():
    with pytest.raises(UsageError, match="no forward pass with a backward pass"):
        apply(generate(), "offload:activations")


def test_an_argument_is_refused():
    with pytest.raises(UsageError, match="takes nothing after its name"):
        apply(train(), "offload:activations:half")
