"""A serving engine's steps: who computes what, who is put back, and how long it takes.

The order of things is vLLM's (version 1 scheduler, ``v1/core/sched/scheduler.py``): running requests first, in order of
their start; where memory lacks the last started is preempted; then waiting requests, first come, first served, unless
one was preempted in this step. A request starts only where all of its prompt would fit now, so that prompts spread over
steps do not push each other out. Tensors are fragmented as blocks are not: after one of them ran out of memory, no
request starts until another is done. A step costs O(running requests), and O(blocks) where a request starts or ends.
"""

from __future__ import annotations

from memscope._kernels import kv_batches as batches
from memscope._kernels import kv_layout as at
from memscope._kernels import kv_memory as memory
from memscope._kernels import kv_prefixes as prefixes
from memscope._kernels import kv_regions as regions
from memscope._kernels import kv_samples as samples
from memscope._kernels.compiled import borrowing


@borrowing
def prepare(serving):
    """Set the memory up: called once, before the first step."""
    params = serving.params
    if params[at.P_KIND] == at.KIND_CONTIGUOUS:
        regions.start_regions(serving, params[at.P_CAPACITY] // params[at.P_GRANULE])


@borrowing
def serve(serving):
    """Run steps until every request is done, or the timeline is full: why it stopped, and rows of the timeline."""
    counters, timeline = serving.counters, serving.timeline
    row = 0
    n = len(serving.requests)
    while counters[at.C_N_DONE] + counters[at.C_N_REFUSED] < n:
        if row == len(timeline):
            return at.STATUS_PAUSE, row
        _arrive(serving)
        if not _has_work(serving):
            if counters[at.C_N_ARRIVED] < n:
                idle = serving.requests[counters[at.C_N_ARRIVED], at.R_ARRIVAL] - counters[at.C_NOW]
                serving.integrals[at.I_IDLE] += idle * serving.params[at.P_CAPACITY]
                counters[at.C_NOW] += idle
            continue
        work = _step(serving)
        if work[0] == 0:
            if serving.params[at.P_KIND] != at.KIND_TENSORS:
                return at.STATUS_STUCK, row
            _refuse_head(serving)
            continue
        _note(counters, serving.params[at.P_CAPACITY], timeline[row])
        _pass_time(serving, work)
        _finish_step(serving)
        timeline[row, at.T_TIME] = counters[at.C_NOW]
        waiting = counters[at.C_N_ARRIVED] - counters[at.C_NEXT] + counters[at.C_N_PREEMPTED]
        timeline[row, at.T_WAITING] = waiting
        row += 1
    return at.STATUS_DONE, row


@borrowing
def _note(counters, capacity, row):
    """Put down what memory holds in a step, before its time passes."""
    row[at.T_START] = counters[at.C_NOW]
    row[at.T_RUNNING] = counters[at.C_N_RUNNING]
    row[at.T_TOKENS] = counters[at.C_TOKENS]
    row[at.T_ALLOC] = counters[at.C_ALLOC] + counters[at.C_SLACK]
    row[at.T_RESERVATION] = counters[at.C_FUTURE]
    row[at.T_SLACK] = counters[at.C_SLACK]
    row[at.T_EXTERNAL] = counters[at.C_SLACK] + _lost_units(counters, capacity)
    row[at.T_SAVED] = counters[at.C_SAVED]
    row[at.T_PREEMPTIONS] = counters[at.C_N_PREEMPTIONS]


@borrowing
def _lost_units(counters, capacity):
    """Units that are free while a request waits for memory."""
    if counters[at.C_IS_BLOCKED] == 0:
        return 0
    return capacity - counters[at.C_ALLOC] - counters[at.C_SLACK]


@borrowing
def _refuse_head(serving):
    """Give up a request that runs out of memory alone: what it needs at once is more than there is."""
    counters = serving.counters
    if counters[at.C_N_PREEMPTED] > 0:
        serving.requests[serving.lists[at.L_PREEMPTED, 0], at.R_IS_REFUSED] = 1
        counters[at.C_N_PREEMPTED] -= 1
        for i in range(counters[at.C_N_PREEMPTED]):
            serving.lists[at.L_PREEMPTED, i] = serving.lists[at.L_PREEMPTED, i + 1]
        counters[at.C_N_REFUSED] += 1
    else:
        # It is counted where it is passed over.
        serving.requests[counters[at.C_NEXT], at.R_IS_REFUSED] = 1


@borrowing
def _arrive(serving):
    counters, n = serving.counters, len(serving.requests)
    while (
        counters[at.C_N_ARRIVED] < n and serving.requests[counters[at.C_N_ARRIVED], at.R_ARRIVAL] <= counters[at.C_NOW]
    ):
        counters[at.C_N_ARRIVED] += 1
    while (
        counters[at.C_NEXT] < counters[at.C_N_ARRIVED] and serving.requests[counters[at.C_NEXT], at.R_IS_REFUSED] == 1
    ):
        counters[at.C_NEXT] += 1
        counters[at.C_N_REFUSED] += 1


@borrowing
def _has_work(serving):
    counters = serving.counters
    return (
        counters[at.C_N_RUNNING] > 0 or counters[at.C_N_PREEMPTED] > 0 or counters[at.C_NEXT] < counters[at.C_N_ARRIVED]
    )


@borrowing
def _step(serving):
    """Choose what a step computes and take its memory: (tokens, pairs of tokens in attention)."""
    counters, params = serving.counters, serving.params
    rules = at.Rules(serving.params, serving.sizes, serving.windows)
    budget, pairs, n_scheduled = params[at.P_STEP_TOKENS], 0.0, 0
    is_static, n_preempted = params[at.P_IS_STATIC] == 1, counters[at.C_N_PREEMPTIONS]
    shares = params[at.P_SHARES_SAMPLES]
    counters[at.C_STEP_SWAPPED] = 0
    n_pads = counters[at.C_N_PADS]
    if not is_static or counters[at.C_N_RUNNING] == 0:
        counters[at.C_IS_BLOCKED] = 0
    i = 0
    while i < counters[at.C_N_RUNNING] and budget > 0:
        request = serving.lists[at.L_RUNNING, i]
        row = serving.requests[request]
        before = row[at.R_COMPUTED]
        n_left = row[at.R_PROMPT] + row[at.R_GENERATED] - before
        n_tokens = samples.n_affordable(row, shares, before, n_left, budget)
        if n_tokens == 0:
            # Its samples are more than what is left of the step: the next one may have fewer.
            i += 1
            continue
        while not memory.grow(serving, request, before + n_tokens):
            counters[at.C_IS_BLOCKED] = 1
            victim = serving.lists[at.L_RUNNING, counters[at.C_N_RUNNING] - 1]
            preempt(serving)
            if victim == request:
                break
        if i >= counters[at.C_N_RUNNING]:
            break
        if row[at.R_SAMPLES] > 1:
            counters[at.C_N_COPIES] += samples.n_copies(rules, row, before, before + n_tokens)
        n_computed = samples.n_computed(row, shares, before, before + n_tokens)
        budget -= n_computed
        n_scheduled += n_computed
        pairs += samples.n_pairs(row, shares, before, before + n_tokens)
        i += 1
    if params[at.P_IS_PADDED] == 1:
        pairs += _pad_finished(serving)
    n_at_start, was_preempted = counters[at.C_N_RUNNING], counters[at.C_N_PREEMPTIONS] > n_preempted
    if is_static and n_at_start == 0:
        # The last of a batch was put back: what the finished ones hold makes room for it.
        _release_finished(serving)
        was_preempted = False
    if n_at_start == 0:
        counters[at.C_IS_FULL] = 0
    can_start = not was_preempted and counters[at.C_IS_FULL] == 0 and (not is_static or n_at_start == 0)
    if can_start and params[at.P_IS_PADDED] == 1:
        batches.choose_batch(serving)
    while can_start and budget > 0:
        request = _head(serving)
        if request == at.NONE or not _has_place(counters, params, serving.requests[request, at.R_SAMPLES]):
            break
        n_tokens, before = _admit(serving, request, budget)
        if n_tokens == 0:
            break
        row = serving.requests[request]
        n_computed = samples.n_computed(row, shares, before, before + n_tokens)
        budget -= n_computed
        n_scheduled += n_computed
        pairs += samples.n_pairs(row, shares, before, before + n_tokens)
    counters[at.C_N_COMPUTED] += n_scheduled
    counters[at.C_PEAK_RUNNING] = max(counters[at.C_PEAK_RUNNING], counters[at.C_N_RUNNING])
    counters[at.C_PEAK_ALLOC] = max(counters[at.C_PEAK_ALLOC], counters[at.C_ALLOC] + counters[at.C_SLACK])
    counters[at.C_PEAK_TOKENS] = max(counters[at.C_PEAK_TOKENS], counters[at.C_TOKENS])
    if n_scheduled == 0:
        return 0, pairs
    counters[at.C_N_STEPS] += 1
    return n_scheduled + counters[at.C_N_PADS] - n_pads, pairs


@borrowing
def _pad_finished(serving):
    """Let the finished sequences of a padded batch grow with the others: pairs of tokens in attention."""
    counters, pairs = serving.counters, 0.0
    i = 0
    while i < counters[at.C_N_FINISHED] and counters[at.C_N_RUNNING] > 0:
        request = serving.lists[at.L_FINISHED, i]
        while not memory.pad_one(serving, request):
            counters[at.C_IS_BLOCKED] = 1
            preempt(serving)
            if counters[at.C_N_RUNNING] == 0:
                return pairs
        row = serving.requests[request]
        pairs += row[at.R_SAMPLES] * (row[at.R_COMPUTED] + row[at.R_PAD])
        i += 1
    return pairs


@borrowing
def _has_place(counters, params, n_samples):
    """Whether a step has room for a request's samples, and a padded batch was chosen to have it."""
    if params[at.P_IS_PADDED] == 1 and counters[at.C_N_BATCH] == 0:
        return False
    return counters[at.C_N_SEQUENCES] + n_samples <= params[at.P_MAX_RUNNING]


@borrowing
def _head(serving):
    """The next request to start: a preempted one, the first to have arrived, or a new one."""
    counters = serving.counters
    if counters[at.C_N_PREEMPTED] > 0:
        return serving.lists[at.L_PREEMPTED, 0]
    request = counters[at.C_NEXT]
    while request < counters[at.C_N_ARRIVED] and serving.requests[request, at.R_IS_REFUSED] == 1:
        request += 1
        counters[at.C_NEXT] = request
        counters[at.C_N_REFUSED] += 1
    return request if request < counters[at.C_N_ARRIVED] else at.NONE


@borrowing
def _admit(serving, request, budget):
    """Start a request: tokens that it computes now (0 if it must wait), and tokens that it has already."""
    counters, params = serving.counters, serving.params
    rules = at.Rules(serving.params, serving.sizes, serving.windows)
    known = serving.requests[request, at.R_PROMPT] + serving.requests[request, at.R_GENERATED]
    n_cached, before = 0, 0
    if serving.requests[request, at.R_IS_SWAPPED] == 1:
        before = serving.requests[request, at.R_COMPUTED]
    elif params[at.P_KIND] == at.KIND_PREFIX:
        n_cached = prefixes.n_cached_blocks(serving, request, known)
        before = n_cached * params[at.P_NODE_TOKENS]
    row, shares = serving.requests[request], params[at.P_SHARES_SAMPLES]
    n_tokens = samples.n_affordable(row, shares, before, known - before, budget)
    if n_tokens == 0 or (n_tokens < known - before and params[at.P_IS_CHUNKED] == 0):
        return 0, 0
    serving.requests[request, at.R_COMPUTED] = 0
    if params[at.P_IS_PADDED] == 1:
        serving.requests[request, at.R_PAD] = counters[at.C_BATCH_TOKENS] - known
    if not memory.start(serving, request, n_cached, before + n_tokens, known):
        serving.requests[request, at.R_COMPUTED] = before if serving.requests[request, at.R_IS_SWAPPED] == 1 else 0
        counters[at.C_IS_BLOCKED] = 1
        return 0, 0
    counters[at.C_N_COPIES] += samples.n_copies(rules, row, before, before + n_tokens)
    n_samples = serving.requests[request, at.R_SAMPLES]
    counters[at.C_N_PADS] += n_samples * serving.requests[request, at.R_PAD]
    counters[at.C_N_BATCH] -= 1
    if serving.requests[request, at.R_IS_SWAPPED] == 1:
        _swap_in(serving, request, before)
    elif counters[at.C_N_PREEMPTED] == 0 and params[at.P_KIND] == at.KIND_PREFIX:
        counters[at.C_N_QUERIED] += prefixes.n_full_blocks(params, row, serving.requests[request, at.R_PROMPT] - 1)
        counters[at.C_N_HIT] += n_cached
    if counters[at.C_N_PREEMPTED] > 0:
        counters[at.C_N_PREEMPTED] -= 1
        for i in range(counters[at.C_N_PREEMPTED]):
            serving.lists[at.L_PREEMPTED, i] = serving.lists[at.L_PREEMPTED, i + 1]
    else:
        counters[at.C_NEXT] += 1
    serving.lists[at.L_RUNNING, counters[at.C_N_RUNNING]] = request
    counters[at.C_N_RUNNING] += 1
    counters[at.C_N_SEQUENCES] += n_samples
    return n_tokens, before


@borrowing
def _swap_in(serving, request, n_tokens):
    rules = at.Rules(serving.params, serving.sizes, serving.windows)
    units = samples.taken_units(rules, serving.requests[request], n_tokens)
    serving.requests[request, at.R_IS_SWAPPED] = 0
    serving.counters[at.C_SWAPPED] -= units
    serving.counters[at.C_STEP_SWAPPED] += units


@borrowing
def preempt(serving):
    """Put the last started request back: into host memory if that has room, else to be computed again."""
    counters, params = serving.counters, serving.params
    rules = at.Rules(serving.params, serving.sizes, serving.windows)
    counters[at.C_N_RUNNING] -= 1
    request = serving.lists[at.L_RUNNING, counters[at.C_N_RUNNING]]
    held = serving.requests[request, at.R_COMPUTED]
    memory.forget(serving, request)
    memory.release(serving, request)
    counters[at.C_N_PREEMPTIONS] += 1
    counters[at.C_N_SEQUENCES] -= serving.requests[request, at.R_SAMPLES]
    units = samples.taken_units(rules, serving.requests[request], held) if params[at.P_SWAP_CAPACITY] > 0 else 0
    if 0 < units <= params[at.P_SWAP_CAPACITY] - counters[at.C_SWAPPED]:
        serving.requests[request, at.R_COMPUTED] = held
        serving.requests[request, at.R_IS_SWAPPED] = 1
        counters[at.C_SWAPPED] += units
        counters[at.C_STEP_SWAPPED] += units
        counters[at.C_N_SWAPS] += 1
    else:
        shares = params[at.P_SHARES_SAMPLES]
        counters[at.C_N_RECOMPUTED] += samples.n_computed(serving.requests[request], shares, 0, held)
    counters[at.C_IS_FULL] = int(params[at.P_KIND] == at.KIND_TENSORS)
    i = counters[at.C_N_PREEMPTED]
    while i > 0 and serving.lists[at.L_PREEMPTED, i - 1] > request:
        serving.lists[at.L_PREEMPTED, i] = serving.lists[at.L_PREEMPTED, i - 1]
        i -= 1
    serving.lists[at.L_PREEMPTED, i] = request
    counters[at.C_N_PREEMPTED] += 1


@borrowing
def _pass_time(serving, work):
    """Let a step's time pass, and add up what memory held meanwhile."""
    counters, costs, integrals = serving.counters, serving.costs, serving.integrals
    n_tokens, pairs = work
    flops = n_tokens * costs[at.F_FLOPS_PER_TOKEN] + pairs * costs[at.F_FLOPS_PER_PAIR]
    traffic = costs[at.F_WEIGHT_BYTES] + counters[at.C_LOGICAL] * costs[at.F_UNIT_BYTES]
    took = max(flops / costs[at.F_FLOPS_PER_US], traffic / costs[at.F_BYTES_PER_US]) + costs[at.F_OVERHEAD_US]
    took += counters[at.C_STEP_SWAPPED] * costs[at.F_UNIT_BYTES] / costs[at.F_SWAP_BYTES_PER_US]
    duration = max(1, int(took + 0.5))
    held, alloc = counters[at.C_TOKENS], counters[at.C_ALLOC]
    slack, future = counters[at.C_SLACK], counters[at.C_FUTURE]
    free = serving.params[at.P_CAPACITY] - alloc - slack
    lost = _lost_units(counters, serving.params[at.P_CAPACITY])
    integrals[at.I_TOKENS] += held * duration
    integrals[at.I_RESERVATION] += future * duration
    integrals[at.I_INTERNAL] += (alloc - held - future) * duration
    integrals[at.I_EXTERNAL] += (slack + lost) * duration
    integrals[at.I_IDLE] += (free - lost) * duration
    counters[at.C_NOW] += duration
    counters[at.C_BUSY_US] += duration


@borrowing
def _finish_step(serving):
    """Count the tokens that came out, and let those go that are done."""
    counters = serving.counters
    is_static = serving.params[at.P_IS_STATIC] == 1
    n_left, n_all = 0, counters[at.C_N_RUNNING]
    for i in range(n_all):
        request = serving.lists[at.L_RUNNING, i]
        is_done = False
        if (
            serving.requests[request, at.R_COMPUTED]
            == serving.requests[request, at.R_PROMPT] + serving.requests[request, at.R_GENERATED]
        ):
            if serving.requests[request, at.R_GENERATED] == 0:
                serving.requests[request, at.R_FIRST_TOKEN_US] = counters[at.C_NOW]
            serving.requests[request, at.R_GENERATED] += 1
            counters[at.C_N_GENERATED] += serving.requests[request, at.R_SAMPLES]
            is_done = serving.requests[request, at.R_GENERATED] == serving.requests[request, at.R_OUTPUT]
        if is_done:
            serving.requests[request, at.R_FINISH_US] = counters[at.C_NOW]
            counters[at.C_N_DONE] += 1
            counters[at.C_IS_FULL] = 0
            counters[at.C_N_SEQUENCES] -= serving.requests[request, at.R_SAMPLES]
            memory.forget(serving, request)
            serving.lists[at.L_FINISHED, counters[at.C_N_FINISHED]] = request
            counters[at.C_N_FINISHED] += 1
        else:
            serving.lists[at.L_RUNNING, n_left] = request
            n_left += 1
    counters[at.C_N_RUNNING] = n_left
    if n_left == 0 or not is_static:
        _release_finished(serving)


@borrowing
def _release_finished(serving):
    """Give back what requests hold that are done."""
    for i in range(serving.counters[at.C_N_FINISHED]):
        memory.release(serving, serving.lists[at.L_FINISHED, i])
    serving.counters[at.C_N_FINISHED] = 0
