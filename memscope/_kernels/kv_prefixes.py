"""Shared blocks of prompts: found by key, counted by readers, and evicted, the longest unread first.

A block's key stands for its tokens and all before them, as the chunk ids of the requests do. A block that several
requests compute is kept once. Blocks that lose their last reader stay cached until their memory is needed; a request's
last blocks go before its first ones.
"""

from __future__ import annotations

from memscope._kernels import kv_layout as at
from memscope._kernels.compiled import borrowing


@borrowing
def node_key(params, chunk_id, start, block):
    """Key of a full block of a request's prompt."""
    node, chunk = params[at.P_NODE_TOKENS], params[at.P_CHUNK_TOKENS]
    if node <= chunk:
        per = chunk // node
        return chunk_id[start + block // per] * per + block % per
    return chunk_id[start + (block + 1) * (node // chunk) - 1]


@borrowing
def n_full_blocks(params, row, n_tokens):
    """Full blocks of the prompt among the first tokens of a sequence."""
    if params[at.P_CHUNK_TOKENS] == 0:
        return 0
    return min(row[at.R_PROMPT], n_tokens) // params[at.P_NODE_TOKENS]


@borrowing
def n_cached_blocks(serving, request, n_known):
    """Blocks at a prompt's start that are cached; at least one token is left to compute."""
    start = serving.requests[request, at.R_CHUNK_START]
    most = n_full_blocks(serving.params, serving.requests[request], n_known - 1)
    n = 0
    while n < most and serving.nodes[at.K_READERS, node_key(serving.params, serving.chunk_id, start, n)] >= 0:
        n += 1
    return n


@borrowing
def n_idle_blocks(serving, request, n_blocks):
    """How many of a prompt's first, cached blocks nobody reads now."""
    start = serving.requests[request, at.R_CHUNK_START]
    n = 0
    for block in range(n_blocks):
        if serving.nodes[at.K_READERS, node_key(serving.params, serving.chunk_id, start, block)] == 0:
            n += 1
    return n


@borrowing
def read_cached(serving, request, n_blocks):
    """Become a reader of a prompt's first blocks, which are cached."""
    start = serving.requests[request, at.R_CHUNK_START]
    node = serving.params[at.P_NODE_TOKENS]
    for block in range(n_blocks):
        _read(serving.counters, serving.nodes, node, node_key(serving.params, serving.chunk_id, start, block))


@borrowing
def share_blocks(serving, request, first, last):
    """Make a sequence's own blocks shared ones, now that they are full; a block that is there already is dropped."""
    start = serving.requests[request, at.R_CHUNK_START]
    node, counters = serving.params[at.P_NODE_TOKENS], serving.counters
    for block in range(first, last):
        key = node_key(serving.params, serving.chunk_id, start, block)
        counters[at.C_ALLOC] -= node
        counters[at.C_TOKENS] -= node
        if serving.nodes[at.K_READERS, key] >= 0:
            _read(counters, serving.nodes, node, key)
        else:
            serving.nodes[at.K_READERS, key] = 1
            counters[at.C_ALLOC] += node
            counters[at.C_TOKENS] += node


@borrowing
def leave_blocks(serving, request, n_blocks):
    """Stop reading a prompt's first blocks, the last of them first."""
    start = serving.requests[request, at.R_CHUNK_START]
    node, counters = serving.params[at.P_NODE_TOKENS], serving.counters
    end = serving.nodes.shape[1] - 1
    for block in range(n_blocks - 1, -1, -1):
        key = node_key(serving.params, serving.chunk_id, start, block)
        serving.nodes[at.K_READERS, key] -= 1
        if serving.nodes[at.K_READERS, key] > 0:
            counters[at.C_SAVED] -= node
        else:
            last = serving.nodes[at.K_PREVIOUS, end]
            serving.nodes[at.K_NEXT, last] = key
            serving.nodes[at.K_PREVIOUS, key] = last
            serving.nodes[at.K_NEXT, key] = end
            serving.nodes[at.K_PREVIOUS, end] = key
            counters[at.C_ALLOC] -= node
            counters[at.C_TOKENS] -= node
            counters[at.C_IDLE] += node


@borrowing
def evict_for(serving, n_units):
    """Evict idle blocks until so many units are free; False, and nothing is evicted, if there are not enough."""
    node, counters = serving.params[at.P_NODE_TOKENS], serving.counters
    capacity, end = serving.params[at.P_CAPACITY], serving.nodes.shape[1] - 1
    if capacity - counters[at.C_ALLOC] < n_units:
        return False
    while capacity - counters[at.C_ALLOC] - counters[at.C_IDLE] < n_units:
        key = serving.nodes[at.K_NEXT, end]
        _unlink(serving.nodes, key)
        serving.nodes[at.K_READERS, key] = at.NONE
        counters[at.C_IDLE] -= node
        counters[at.C_N_EVICTIONS] += 1
    return True


@borrowing
def _read(counters, nodes, node, key):
    """Become a reader of a cached block of so many units."""
    if nodes[at.K_READERS, key] == 0:
        _unlink(nodes, key)
        counters[at.C_IDLE] -= node
        counters[at.C_ALLOC] += node
        counters[at.C_TOKENS] += node
    else:
        counters[at.C_SAVED] += node
    nodes[at.K_READERS, key] += 1


@borrowing
def _unlink(nodes, key):
    before, after = nodes[at.K_PREVIOUS, key], nodes[at.K_NEXT, key]
    nodes[at.K_NEXT, before] = after
    nodes[at.K_PREVIOUS, after] = before
