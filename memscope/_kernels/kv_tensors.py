"""Caches that are tensors: every step makes them anew, one token longer, in PyTorch's caching allocator.

A layer's keys, and its values, are one tensor of a request, with a row for each sample and, in a padded batch, with its
padding; a step concatenates the old one and the new tokens to another, and only then lets the old one go
(``torch.cat``, as Hugging Face's ``DynamicLayer.update``). Which store a replay has decides what is compiled: the
allocator is not, where nothing needs it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.extending import overload

from memscope._kernels import caching_layout as allocator
from memscope._kernels import kv_layout as at
from memscope._kernels.caching import malloc
from memscope._kernels.caching_blocks import request_free
from memscope._kernels.compiled import borrowing


class NoTensors(NamedTuple):
    """The store of managers that keep no tensors."""

    nothing: int = 0


class Tensors(NamedTuple):
    """Tensors of every request.

    Attributes
    ----------
    arrays
        The allocator's ``CachingArrays``, of one stream and pool.
    token_bytes, window
        int64 (tensors,): bytes of one token, and tokens that are looked back over (0: all of them).
    block
        int32 (n, tensors): block of each, −1 for none.
    n_grown
        int64 (n,): tensors that have the new length, of a request whose step ran out of memory.
    unit_bytes
        Bytes of a unit.
    """

    arrays: Any
    token_bytes: Any
    window: Any
    block: Any
    n_grown: Any
    unit_bytes: int


@borrowing
def _grow_tensors(store, serving, request, before, n_tokens):
    arrays, block = store.arrays, store.block
    n_samples, pad = serving.requests[request, at.R_SAMPLES], serving.requests[request, at.R_PAD]
    old = before + pad if before > 0 else 0
    added = n_tokens + pad - old
    for i in range(store.n_grown[request], len(store.token_bytes)):
        kept = old if store.window[i] == 0 else min(old, store.window[i] - 1)
        new = malloc(arrays, 0, n_samples * (kept + added) * store.token_bytes[i])
        if new < 0:
            store.n_grown[request] = i
            return False
        if block[request, i] != at.NONE:
            request_free(arrays, block[request, i], False)
        block[request, i] = new
    store.n_grown[request] = 0
    serving.counters[at.C_ALLOC] = arrays.counters[allocator.C_ACTIVE] // store.unit_bytes
    return True


@borrowing
def _drop_tensors(store, serving, request):
    arrays, block = store.arrays, store.block
    for i in range(len(store.token_bytes)):
        if block[request, i] != at.NONE:
            request_free(arrays, block[request, i], False)
            block[request, i] = at.NONE
    store.n_grown[request] = 0
    serving.counters[at.C_ALLOC] = arrays.counters[allocator.C_ACTIVE] // store.unit_bytes


@borrowing
def _grow_nothing(store, serving, request, before, n_tokens):
    return False


@borrowing
def _drop_nothing(store, serving, request):
    pass


def grow_tensors(store, serving, request, before, n_tokens):
    """Make a request's tensors longer; False if memory ran out, and it goes on where it stopped when called again."""
    grow = _grow_tensors if isinstance(store, Tensors) else _grow_nothing
    return grow(store, serving, request, before, n_tokens)


def drop_tensors(store, serving, request):
    """Free a request's tensors."""
    drop = _drop_tensors if isinstance(store, Tensors) else _drop_nothing
    drop(store, serving, request)


@overload(grow_tensors)
def _grow_of(store, serving, request, before, n_tokens):
    grow = _grow_tensors if store.instance_class is Tensors else _grow_nothing

    def call(store, serving, request, before, n_tokens):
        return grow(store, serving, request, before, n_tokens)

    return call


@overload(drop_tensors)
def _drop_of(store, serving, request):
    drop = _drop_tensors if store.instance_class is Tensors else _drop_nothing

    def call(store, serving, request):
        return drop(store, serving, request)

    return call
