"""Regions for whole requests, placed by binary buddies: the lowest free block of the smallest size that fits."""

from __future__ import annotations

from memscope._kernels import kv_layout as at
from memscope._kernels.compiled import borrowing


@borrowing
def start_regions(serving, n_granules):
    """Cut the memory into the largest powers of two that it holds, the largest first."""
    address = 0
    for order in range(at.MAX_ORDERS - 1, -1, -1):
        if n_granules & (1 << order):
            serving.free_blocks[order, 1] = address
            serving.free_blocks[order, 0] = 1
            address += 1 << order


@borrowing
def order_of(n_granules):
    """The power of two that holds so many granules."""
    order = 0
    while (1 << order) < n_granules:
        order += 1
    return order


@borrowing
def take_region(serving, request):
    """Place a request's region; False if no block is large enough. O(free blocks)."""
    granule = serving.params[at.P_GRANULE]
    wanted = order_of(-(-serving.requests[request, at.R_REGION] // granule))
    order = wanted
    while order < at.MAX_ORDERS and serving.free_blocks[order, 0] == 0:
        order += 1
    if order == at.MAX_ORDERS:
        return False
    blocks = serving.free_blocks[order]
    lowest = 1
    for i in range(2, 1 + blocks[0]):
        if blocks[i] < blocks[lowest]:
            lowest = i
    address = blocks[lowest]
    _drop(serving, order, lowest)
    while order > wanted:
        order -= 1
        _add(serving, order, address + (1 << order))
    serving.requests[request, at.R_ADDRESS] = address
    serving.requests[request, at.R_ORDER] = wanted
    return True


@borrowing
def give_region(serving, request):
    """Give a region back, and join it with its buddy as long as that is free."""
    order, address = serving.requests[request, at.R_ORDER], serving.requests[request, at.R_ADDRESS]
    while True:
        buddy = address ^ (1 << order)
        found = at.NONE
        for i in range(1, 1 + serving.free_blocks[order, 0]):
            if serving.free_blocks[order, i] == buddy:
                found = i
                break
        if found == at.NONE:
            break
        _drop(serving, order, found)
        address = min(address, buddy)
        order += 1
    _add(serving, order, address)


@borrowing
def region_units(serving, request):
    """Units of the block that holds a request's region."""
    return (1 << serving.requests[request, at.R_ORDER]) * serving.params[at.P_GRANULE]


@borrowing
def _add(serving, order, address):
    serving.free_blocks[order, 0] += 1
    serving.free_blocks[order, serving.free_blocks[order, 0]] = address


@borrowing
def _drop(serving, order, i):
    serving.free_blocks[order, i] = serving.free_blocks[order, serving.free_blocks[order, 0]]
    serving.free_blocks[order, 0] -= 1
