"""What a request takes and gives back, by kind of manager."""

from __future__ import annotations

from memscope._kernels import kv_layout as at
from memscope._kernels import kv_prefixes as prefixes
from memscope._kernels import kv_regions as regions
from memscope._kernels import kv_samples as samples
from memscope._kernels.compiled import borrowing
from memscope._kernels.kv_tensors import drop_tensors, grow_tensors


@borrowing
def start(serving, request, n_cached, n_tokens, n_known):
    """Take memory for a request that holds nothing: its first ``n_tokens``, ``n_cached`` blocks of them shared.

    False, and nothing is changed, if there is not enough for all ``n_known`` tokens that it will compute before its
    next one comes out.
    """
    counters, params, row = serving.counters, serving.params, serving.requests[request]
    rules = at.Rules(params, serving.sizes, serving.windows)
    kind, free = params[at.P_KIND], params[at.P_CAPACITY] - counters[at.C_ALLOC]
    if kind == at.KIND_CONTIGUOUS:
        if not regions.take_regions(serving, request):
            return False
        n_samples = row[at.R_SAMPLES]
        counters[at.C_ALLOC] += n_samples * row[at.R_REGION]
        counters[at.C_SLACK] += regions.slack_units(params, row)
        counters[at.C_FUTURE] += samples.held_units(rules, row, final_tokens(row))
    elif kind == at.KIND_PREFIX:
        node = params[at.P_NODE_TOKENS]
        needed = samples.taken_units(rules, row, n_known) - n_cached * node
        if needed > free - prefixes.n_idle_blocks(serving, request, n_cached) * node:
            return False
        prefixes.read_cached(serving, request, n_cached)
        row[at.R_COMPUTED] = n_cached * node
        counters[at.C_LOGICAL] += samples.read_units(rules, row, n_cached * node)
    elif kind == at.KIND_TENSORS:
        padded = n_known + row[at.R_PAD]
        needed = row[at.R_SAMPLES] * serving.sizes[at.S_TOKENS, padded]
        if needed + _copy_units(serving) > free:
            return False
    elif samples.taken_units(rules, row, n_known) > free:
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
        row = serving.requests[serving.lists[at.L_RUNNING, i]]
        longest = max(longest, row[at.R_SAMPLES] * (row[at.R_COMPUTED] + row[at.R_PAD]))
    return longest * serving.params[at.P_TENSOR_UNITS]


@borrowing
def final_tokens(row):
    """Tokens that each sample keeps in the end."""
    return row[at.R_PROMPT] + row[at.R_OUTPUT] - 1


@borrowing
def grow(serving, request, n_tokens):
    """Take what a running request needs to hold ``n_tokens``; False if there is not enough.

    Nothing is changed then, but tensors that were made longer already: calling it again goes on from there.
    """
    counters, params, row = serving.counters, serving.params, serving.requests[request]
    rules = at.Rules(params, serving.sizes, serving.windows)
    kind, before = params[at.P_KIND], row[at.R_COMPUTED]
    if row[at.R_SAMPLES] == 1:
        more = serving.sizes[at.S_ALLOC, n_tokens] - serving.sizes[at.S_ALLOC, before]
    else:
        more = samples.taken_units(rules, row, n_tokens) - samples.taken_units(rules, row, before)
    if kind == at.KIND_GROWING:
        if more > params[at.P_CAPACITY] - counters[at.C_ALLOC]:
            return False
        counters[at.C_ALLOC] += more
    elif kind == at.KIND_PREFIX:
        if not prefixes.evict_for(serving, more):
            return False
        counters[at.C_ALLOC] += more
    elif kind == at.KIND_TENSORS and not grow_tensors(serving.store, serving, request, before, n_tokens):
        return False
    _hold(serving, request, n_tokens)
    if kind == at.KIND_PREFIX:
        first = prefixes.n_full_blocks(params, row, before)
        prefixes.share_blocks(serving, request, first, prefixes.n_full_blocks(params, row, n_tokens))
    return True


@borrowing
def pad_one(serving, request):
    """Make a finished request's sequences one token longer, as the padded batch that it is part of goes on.

    False, as in :func:`grow`, if there is not enough.
    """
    row = serving.requests[request]
    rules = at.Rules(serving.params, serving.sizes, serving.windows)
    held = row[at.R_COMPUTED]
    if serving.params[at.P_KIND] == at.KIND_TENSORS and not grow_tensors(
        serving.store, serving, request, held, held + 1
    ):
        return False
    before = samples.read_units(rules, row, held)
    row[at.R_PAD] += 1
    serving.counters[at.C_LOGICAL] += samples.read_units(rules, row, held) - before
    serving.counters[at.C_N_PADS] += row[at.R_SAMPLES]
    return True


@borrowing
def release(serving, request):
    """Give back the memory of a request whose tokens are forgotten."""
    counters, params, row = serving.counters, serving.params, serving.requests[request]
    rules = at.Rules(params, serving.sizes, serving.windows)
    kind, held = params[at.P_KIND], row[at.R_COMPUTED]
    counters[at.C_SAVED] -= samples.saved_units(rules, row, held)
    if params[at.P_IS_PADDED] == 1:
        counters[at.C_LOGICAL] -= samples.read_units(rules, row, held)
    if kind == at.KIND_CONTIGUOUS:
        n_samples = row[at.R_SAMPLES]
        counters[at.C_ALLOC] -= n_samples * row[at.R_REGION]
        counters[at.C_SLACK] -= regions.slack_units(params, row)
        regions.give_regions(serving, request)
    elif kind == at.KIND_GROWING:
        counters[at.C_ALLOC] -= samples.taken_units(rules, row, held)
    elif kind == at.KIND_TENSORS:
        drop_tensors(serving.store, serving, request)
    else:
        n_blocks = prefixes.n_full_blocks(params, row, held)
        counters[at.C_ALLOC] -= samples.taken_units(rules, row, held) - n_blocks * params[at.P_NODE_TOKENS]
        prefixes.leave_blocks(serving, request, n_blocks)
    row[at.R_COMPUTED] = 0
    row[at.R_PAD] = 0


@borrowing
def forget(serving, request):
    """Count a request's tokens no longer as held, while its memory stays taken."""
    counters, params, row = serving.counters, serving.params, serving.requests[request]
    rules = at.Rules(params, serving.sizes, serving.windows)
    kind, held = params[at.P_KIND], row[at.R_COMPUTED]
    units = samples.held_units(rules, row, held)
    if params[at.P_IS_PADDED] == 0:
        # A padded batch is read as a whole until its end.
        counters[at.C_LOGICAL] -= samples.read_units(rules, row, held)
    if kind == at.KIND_PREFIX:
        shared = prefixes.n_full_blocks(params, row, held) * params[at.P_NODE_TOKENS]
        counters[at.C_TOKENS] -= units - shared
        return
    counters[at.C_TOKENS] -= units
    if kind == at.KIND_CONTIGUOUS:
        counters[at.C_FUTURE] -= samples.held_units(rules, row, final_tokens(row)) - units


@borrowing
def _hold(serving, request, n_tokens):
    """Count so many tokens of each sample as held."""
    counters, row = serving.counters, serving.requests[request]
    before = row[at.R_COMPUTED]
    if row[at.R_SAMPLES] == 1 and row[at.R_PAD] == 0:
        more = serving.sizes[at.S_TOKENS, n_tokens] - serving.sizes[at.S_TOKENS, before]
        counters[at.C_LOGICAL] += more
    else:
        more = _hold_samples(serving, request, before, n_tokens)
    counters[at.C_TOKENS] += more
    if serving.params[at.P_KIND] == at.KIND_CONTIGUOUS:
        counters[at.C_FUTURE] -= more
    row[at.R_COMPUTED] = n_tokens


@borrowing
def _hold_samples(serving, request, before, n_tokens):
    """Units of tokens more, of several samples or with padding; counts what is read, and saved by sharing."""
    counters, row = serving.counters, serving.requests[request]
    rules = at.Rules(serving.params, serving.sizes, serving.windows)
    counters[at.C_LOGICAL] += samples.read_units(rules, row, n_tokens)
    counters[at.C_LOGICAL] -= samples.read_units(rules, row, before)
    counters[at.C_SAVED] += samples.saved_units(rules, row, n_tokens)
    counters[at.C_SAVED] -= samples.saved_units(rules, row, before)
    return samples.held_units(rules, row, n_tokens) - samples.held_units(rules, row, before)
