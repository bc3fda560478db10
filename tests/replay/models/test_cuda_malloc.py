"""No caching: what is freed goes back to the driver at once."""

from memscope.replay.models._cuda_malloc import CUDA_MALLOC
from tests.replay.models.modelled_allocator import ModelledAllocator

MiB = 1 << 20


def test_every_large_request_is_taken_from_the_driver_and_given_back():
    allocator = ModelledAllocator(CUDA_MALLOC)
    first = allocator.malloc(5 * MiB)
    assert allocator.stats.reserved_bytes == 6 * MiB  # three pages of 2 MiB
    allocator.free(first)
    assert allocator.stats.reserved_bytes == 0
    allocator.free(allocator.malloc(5 * MiB))
    calls = allocator.driver_calls.counts
    assert (calls["cudaMalloc"], calls["cudaFree"]) == (2, 2)
    allocator.check()


def test_small_requests_share_a_page():
    allocator = ModelledAllocator(CUDA_MALLOC)
    addresses = [allocator.malloc(1000) for _ in range(4)]
    assert allocator.stats.reserved_bytes == 2 * MiB
    for address in addresses:
        allocator.free(address)
    assert allocator.stats.reserved_bytes == 0
    allocator.check()
