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
def take_regions(serving, request):
    """Place a region for each sample; False, and nothing is taken, if there are not blocks enough. O(free blocks)."""
    granule, first = serving.params[at.P_GRANULE], serving.requests[request, at.R_FIRST_ADDRESS]
    order = order_of(-(-serving.requests[request, at.R_REGION] // granule))
    for sample in range(serving.requests[request, at.R_SAMPLES]):
        address = _take_block(serving.free_blocks, order)
        if address == at.NONE:
            for i in range(sample):
                _give_block(serving.free_blocks, order, serving.addresses[first + i])
            return False
        serving.addresses[first + sample] = address
    serving.requests[request, at.R_ORDER] = order
    return True


@borrowing
def give_regions(serving, request):
    """Give a request's regions back."""
    first = serving.requests[request, at.R_FIRST_ADDRESS]
    for sample in range(serving.requests[request, at.R_SAMPLES]):
        _give_block(serving.free_blocks, serving.requests[request, at.R_ORDER], serving.addresses[first + sample])


@borrowing
def slack_units(params, row):
    """Units that the blocks of a request's regions have on top of them."""
    block = (1 << row[at.R_ORDER]) * params[at.P_GRANULE]
    return row[at.R_SAMPLES] * (block - row[at.R_REGION])


@borrowing
def _take_block(free_blocks, wanted):
    """Address of a block of that power of two, cut out of the smallest that is large enough; −1 if there is none."""
    order = wanted
    while order < at.MAX_ORDERS and free_blocks[order, 0] == 0:
        order += 1
    if order == at.MAX_ORDERS:
        return at.NONE
    blocks = free_blocks[order]
    lowest = 1
    for i in range(2, 1 + blocks[0]):
        if blocks[i] < blocks[lowest]:
            lowest = i
    address = blocks[lowest]
    _drop(free_blocks, order, lowest)
    while order > wanted:
        order -= 1
        _add(free_blocks, order, address + (1 << order))
    return address


@borrowing
def _give_block(free_blocks, order, address):
    """Give a block back, and join it with its buddy as long as that is free."""
    while True:
        buddy = address ^ (1 << order)
        found = at.NONE
        for i in range(1, 1 + free_blocks[order, 0]):
            if free_blocks[order, i] == buddy:
                found = i
                break
        if found == at.NONE:
            break
        _drop(free_blocks, order, found)
        address = min(address, buddy)
        order += 1
    _add(free_blocks, order, address)


@borrowing
def _add(free_blocks, order, address):
    free_blocks[order, 0] += 1
    free_blocks[order, free_blocks[order, 0]] = address


@borrowing
def _drop(free_blocks, order, i):
    free_blocks[order, i] = free_blocks[order, free_blocks[order, 0]]
    free_blocks[order, 0] -= 1
