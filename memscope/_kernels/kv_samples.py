"""Requests for several samples: sequences that begin with one prompt and go on each its own way.

All samples of a request run, wait and are put back together, and have as many tokens. Where a manager shares blocks,
the prompt is computed and kept once. From the first token on which samples differ, its full blocks stay shared; its
last block, where that is partly filled, is copied for all samples but one, which goes on in it (PagedAttention, arXiv
2309.06180, section 4.4). Other managers compute and keep the prompt for each sample.

One sample without padding is the ordinary case. Where every step asks for it, the answer is worked out in place.
"""

from __future__ import annotations

from memscope._kernels import kv_layout as at
from memscope._kernels.compiled import borrowing


@borrowing
def n_sequences(rules, row, n_tokens):
    """Sequences that are kept when each has so many tokens: one while the prompt is shared as a whole."""
    samples = row[at.R_SAMPLES]
    if samples > 1 and n_tokens <= row[at.R_PROMPT]:
        return 1 if rules.params[at.P_SHARES_SAMPLES] == 1 else samples
    return samples


@borrowing
def shared_tokens(rules, row):
    """Tokens of a prompt that its samples go on sharing: those in full blocks."""
    step = rules.params[at.P_PRIVATE_TOKENS]
    return row[at.R_PROMPT] // step * step


@borrowing
def _is_apart(rules, row, n_tokens):
    """Whether samples that share a prompt have become sequences of their own."""
    return row[at.R_SAMPLES] > 1 and rules.params[at.P_SHARES_SAMPLES] == 1 and n_tokens > row[at.R_PROMPT]


@borrowing
def saved_units(rules, row, n_tokens):
    """Units that the samples would take on top if each had its prompt's blocks for itself."""
    if not _is_apart(rules, row, n_tokens):
        return 0
    step, shared = rules.params[at.P_PRIVATE_TOKENS], shared_tokens(rules, row)
    units = 0
    for i in range(len(rules.windows)):
        window = rules.windows[i, at.W_TOKENS]
        first = 0 if window == 0 else max(0, n_tokens - window) // step * step
        units += rules.windows[i, at.W_UNITS] * max(0, shared - first)
    return units * (row[at.R_SAMPLES] - 1)


@borrowing
def held_units(rules, row, n_tokens):
    """Units of tokens that a request keeps when each sample has so many, shared ones counted once."""
    units = n_sequences(rules, row, n_tokens) * rules.sizes[at.S_TOKENS, n_tokens]
    if not _is_apart(rules, row, n_tokens):
        return units
    shared, twice = shared_tokens(rules, row), 0
    for i in range(len(rules.windows)):
        window = rules.windows[i, at.W_TOKENS]
        first = 0 if window == 0 else max(0, n_tokens - window)
        twice += rules.windows[i, at.W_UNITS] * max(0, shared - first)
    return units - twice * (row[at.R_SAMPLES] - 1)


@borrowing
def read_units(rules, row, n_tokens):
    """Units of tokens, and of what they are padded with, that all samples read in a step."""
    if n_tokens == 0:
        return 0
    padded = n_tokens + row[at.R_PAD]
    return n_sequences(rules, row, n_tokens) * rules.sizes[at.S_TOKENS, padded]


@borrowing
def taken_units(rules, row, n_tokens):
    """Units that a request takes when each sample has so many tokens (growing kinds)."""
    units = n_sequences(rules, row, n_tokens) * rules.sizes[at.S_ALLOC, n_tokens]
    return units - saved_units(rules, row, n_tokens)


@borrowing
def n_computed(row, shares, before, after):
    """Tokens to compute so that every sample of a request's row gets from so many to so many."""
    samples, prompt = row[at.R_SAMPLES], row[at.R_PROMPT]
    if samples == 1 or shares == 0:
        return samples * (after - before)
    once = min(after, prompt) - min(before, prompt)
    return once + samples * (max(after, prompt) - max(before, prompt))


@borrowing
def n_affordable(row, shares, before, n_tokens, budget):
    """How many of the next ``n_tokens`` of every sample are computed with so many tokens in all."""
    samples = row[at.R_SAMPLES]
    if samples == 1:
        return min(n_tokens, budget)
    if shares == 0:
        return min(n_tokens, budget // samples)
    once = max(0, row[at.R_PROMPT] - before)
    return min(n_tokens, budget if budget <= once else once + (budget - once) // samples)


@borrowing
def n_pairs(row, shares, before, after):
    """Pairs of tokens that attention looks at on the way."""
    samples, prompt, pad = row[at.R_SAMPLES], row[at.R_PROMPT], row[at.R_PAD]
    first, last = (before + pad if before > 0 else 0), after + pad
    if samples == 1 or shares == 0:
        return samples * (_triangle(last) - _triangle(first))
    once = _triangle(min(last, prompt)) - _triangle(min(first, prompt))
    return once + samples * (_triangle(max(last, prompt)) - _triangle(max(first, prompt)))


@borrowing
def _triangle(n):
    return n * (n + 1) / 2


@borrowing
def n_copies(rules, row, before, after):
    """Blocks that are copied where samples go apart on the way; a block of all layers is one."""
    prompt = row[at.R_PROMPT]
    if before <= prompt and _is_apart(rules, row, after) and shared_tokens(rules, row) < prompt:
        return row[at.R_SAMPLES] - 1
    return 0
