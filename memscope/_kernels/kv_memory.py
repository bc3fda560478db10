"""What a request takes and gives back, by kind of manager."""

from __future__ import annotations

from memscope._kernels import kv_layout as at
from memscope._kernels import kv_prefixes as prefixes
from memscope._kernels import kv_regions as regions
from memscope._kernels.compiled import borrowing
from memscope._kernels.kv_tensors import drop_tensors, grow_tensors


@borrowing
def start(serving, request, n_cached, n_tokens, n_known):
    """Take memory for a request that holds nothing: its first ``n_tokens``, ``n_cached`` blocks of them shared.

    False, and nothing is changed, if there is not enough for all ``n_known`` tokens that it will compute before its
    next one comes out.
    """
    counters, params = serving.counters, serving.params
    kind, free = params[at.P_KIND], params[at.P_CAPACITY] - counters[at.C_ALLOC]
    if kind == at.KIND_CONTIGUOUS:
        if not regions.take_region(serving, request):
            return False
        counters[at.C_ALLOC] += serving.requests[request, at.R_REGION]
        counters[at.C_SLACK] += regions.region_units(serving, request) - serving.requests[request, at.R_REGION]
        counters[at.C_FUTURE] += serving.sizes[
            at.S_TOKENS, serving.requests[request, at.R_PROMPT] + serving.requests[request, at.R_OUTPUT] - 1
        ]
    elif kind == at.KIND_PREFIX:
        node = params[at.P_NODE_TOKENS]
        needed = _private_need(serving, request, n_cached * node, n_known)
        if needed > free - prefixes.n_idle_blocks(serving, request, n_cached) * node:
            return False
        prefixes.read_cached(serving, request, n_cached)
        serving.requests[request, at.R_COMPUTED] = n_cached * node
        counters[at.C_LOGICAL] += n_cached * node
    elif kind == at.KIND_TENSORS:
        if serving.sizes[at.S_TOKENS, n_known] + _copy_units(serving) > free:
            return False
    elif serving.sizes[at.S_ALLOC, n_known] > free:
        return False
    if grow(serving, request, n_tokens):
        return True
    drop_tensors(serving.store, serving, request)
    return False


@borrowing
def _copy_units(serving):
    """Units of the second copy that the longest running request needs of a tensor while it is made longer."""
    longest = 0
    for i in range(serving.counters[at.C_N_RUNNING]):
        longest = max(longest, serving.requests[serving.lists[at.L_RUNNING, i], at.R_COMPUTED])
    return longest * serving.params[at.P_TENSOR_UNITS]


@borrowing
def grow(serving, request, n_tokens):
    """Take what a running request needs to hold ``n_tokens``; False if there is not enough.

    Nothing is changed then, but tensors that were made longer already: calling it again goes on from there.
    """
    counters, params = serving.counters, serving.params
    kind, before = params[at.P_KIND], serving.requests[request, at.R_COMPUTED]
    if kind == at.KIND_GROWING:
        more = serving.sizes[at.S_ALLOC, n_tokens] - serving.sizes[at.S_ALLOC, before]
        if more > params[at.P_CAPACITY] - counters[at.C_ALLOC]:
            return False
        counters[at.C_ALLOC] += more
    elif kind == at.KIND_PREFIX:
        more = _private_need(serving, request, before, n_tokens)
        if not prefixes.evict_for(serving, more):
            return False
        counters[at.C_ALLOC] += more
    elif kind == at.KIND_TENSORS and not grow_tensors(serving.store, serving, request, before, n_tokens):
        return False
    _hold(serving, request, n_tokens)
    if kind == at.KIND_PREFIX:
        first = prefixes.n_full_blocks(serving, request, before)
        prefixes.share_blocks(serving, request, first, prefixes.n_full_blocks(serving, request, n_tokens))
    return True


@borrowing
def release(serving, request):
    """Give back the memory of a request whose tokens are forgotten."""
    counters = serving.counters
    kind, held = serving.params[at.P_KIND], serving.requests[request, at.R_COMPUTED]
    if kind == at.KIND_CONTIGUOUS:
        counters[at.C_ALLOC] -= serving.requests[request, at.R_REGION]
        counters[at.C_SLACK] -= regions.region_units(serving, request) - serving.requests[request, at.R_REGION]
        regions.give_region(serving, request)
    elif kind == at.KIND_GROWING:
        counters[at.C_ALLOC] -= serving.sizes[at.S_ALLOC, held]
    elif kind == at.KIND_TENSORS:
        drop_tensors(serving.store, serving, request)
    else:
        counters[at.C_ALLOC] -= prefixes.private_units(serving, request, held)
        prefixes.leave_blocks(serving, request, prefixes.n_full_blocks(serving, request, held))
    serving.requests[request, at.R_COMPUTED] = 0


@borrowing
def forget(serving, request):
    """Count a request's tokens no longer as held, while its memory stays taken."""
    counters = serving.counters
    kind, held = serving.params[at.P_KIND], serving.requests[request, at.R_COMPUTED]
    units = serving.sizes[at.S_TOKENS, held]
    counters[at.C_LOGICAL] -= units
    if kind == at.KIND_PREFIX:
        shared = prefixes.n_full_blocks(serving, request, held) * serving.params[at.P_NODE_TOKENS]
        counters[at.C_TOKENS] -= held - shared
        return
    counters[at.C_TOKENS] -= units
    if kind == at.KIND_CONTIGUOUS:
        counters[at.C_FUTURE] -= (
            serving.sizes[
                at.S_TOKENS, serving.requests[request, at.R_PROMPT] + serving.requests[request, at.R_OUTPUT] - 1
            ]
            - units
        )


@borrowing
def _hold(serving, request, n_tokens):
    counters = serving.counters
    more = serving.sizes[at.S_TOKENS, n_tokens] - serving.sizes[at.S_TOKENS, serving.requests[request, at.R_COMPUTED]]
    counters[at.C_TOKENS] += more
    counters[at.C_LOGICAL] += more
    if serving.params[at.P_KIND] == at.KIND_CONTIGUOUS:
        counters[at.C_FUTURE] -= more
    serving.requests[request, at.R_COMPUTED] = n_tokens


@borrowing
def _private_need(serving, request, before, n_tokens):
    """Units to take before the blocks that these tokens fill become shared ones."""
    full = prefixes.n_full_blocks(serving, request, before) * serving.params[at.P_NODE_TOKENS]
    step = serving.params[at.P_PRIVATE_TOKENS]
    return (-(-(n_tokens - full) // step) - -(-(before - full) // step)) * step
