"""Padded batches: which requests a static batch takes, and how long their prompts are made."""

from __future__ import annotations

from memscope._kernels import kv_layout as at
from memscope._kernels.compiled import borrowing


@borrowing
def choose_batch(serving):
    """Choose the requests of the next batch, in the order in which they start, as many as fit when all are padded.

    All prompts are as long as the longest of the batch, and every sequence grows until the last one is done: that must
    not get longer than the longest sequence that is accepted, and all prompts must fit into one step and into memory.
    Of tensors only the bytes are looked at: one of the batch may still find no room among the others.
    """
    counters = serving.counters
    length, n_left, n_rows, n_chosen, place = 0, 0, 0, 0, 0
    while True:
        request, place = _candidate(counters, serving.requests, serving.lists, place)
        if request == at.NONE:
            break
        row = serving.requests[request]
        known = row[at.R_PROMPT] + row[at.R_GENERATED]
        longer, more = max(length, known), max(n_left, row[at.R_OUTPUT] - 1 - row[at.R_GENERATED])
        rows = n_rows + row[at.R_SAMPLES]
        if n_chosen > 0 and not _is_allowed(serving.params, rows, longer, more):
            break
        if n_chosen > 0 and not _has_memory(serving.params, serving.sizes, rows, longer):
            counters[at.C_IS_BLOCKED] = 1
            break
        length, n_left, n_rows, n_chosen = longer, more, rows, n_chosen + 1
    counters[at.C_BATCH_TOKENS], counters[at.C_N_BATCH] = length, n_chosen


@borrowing
def _candidate(counters, requests, lists, place):
    """The next request after so many that were looked at, and that many: preempted ones first; −1 if there is none."""
    if place < counters[at.C_N_PREEMPTED]:
        return lists[at.L_PREEMPTED, place], place + 1
    request = counters[at.C_NEXT] + place - counters[at.C_N_PREEMPTED]
    while request < counters[at.C_N_ARRIVED] and requests[request, at.R_IS_REFUSED] == 1:
        request += 1
        place += 1
    return request if request < counters[at.C_N_ARRIVED] else at.NONE, place + 1


@borrowing
def _is_allowed(params, n_rows, length, n_left):
    """Whether so many sequences, padded to that length, of which one still gets so many tokens, may be a batch."""
    if n_rows > params[at.P_MAX_RUNNING] or n_rows * length > params[at.P_STEP_TOKENS]:
        return False
    return length + n_left <= params[at.P_LONGEST]


@borrowing
def _has_memory(params, sizes, n_rows, length):
    """Whether memory, all of which is free, holds so many sequences of that length."""
    if params[at.P_KIND] == at.KIND_TENSORS:
        copy = length * params[at.P_TENSOR_UNITS]
        return n_rows * sizes[at.S_TOKENS, length] + copy <= params[at.P_CAPACITY]
    return n_rows <= params[at.P_REGIONS]
