"""Key/value caches of a program that runs: numbered, claimed, described, and their lengths noted."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from memscope.capture.kv_caches import (
    CACHE_NAMES,
    UNKNOWN_KIND,
    CacheLeaf,
    LayerShape,
    describe_layer,
    is_static,
    layer_parts,
    layers_of,
    leaves,
    n_query_tokens,
    tokens_taken_in,
)
from memscope.capture.patches import Patches
from memscope.trace.cache_labels import cache_label
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID

_MODULE = "transformers.cache_utils"
_CHANGES = ("reorder_cache", "crop", "batch_repeat_interleave", "batch_select_indices")
"""Methods of a cache that give its layers other tensors outside of a forward pass."""


class CacheNotes(Protocol):
    """Where what is found is noted, at the moment at which it is."""

    def claim(self, tensor: Any, category: Category, label: str) -> None:
        """Whose a tensor's memory is; nothing happens if it has none on a GPU."""

    def cache_layer(self, cache_id: int, layer: int, shape: LayerShape) -> None:
        """How a layer keeps its tokens from now on."""

    def cache_length(self, cache_id: int, n_tokens: int, device: int) -> None:
        """Tokens of each sequence that a cache has taken in."""

    def flush(self) -> None:
        """All of one moment was noted."""


class _Known:
    """What is known of one cache."""

    __slots__ = ("cache_id", "is_cross", "labels", "layers", "lengths", "n_counted", "static")

    def __init__(self, n_counted: int, *, is_cross: bool) -> None:
        self.cache_id: int | None = None
        self.is_cross = is_cross
        self.n_counted = n_counted
        """Tokens of the forward passes that used it since it was empty, −1 where that is not known."""
        self.static: Any = None
        """A layer that has its full size from the start, if there is one."""
        self.layers: dict[int, LayerShape] = {}
        self.lengths: dict[int, int] = {}
        self.labels: dict[tuple[int, str], str] = {}


class CacheWatch:
    """Follows the caches that models are given and return.

    Caches are numbered from 1 on in the order in which they first held something on a GPU; a tuple of tensors has no
    number, as each step makes a new one. A layer is described when it is first seen and whenever it has changed, a
    length noted where it has. With gradients on, caches are activations.
    """

    def __init__(self, notes: CacheNotes) -> None:
        self._notes = notes
        self._known: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()
        self._tuples = [_Known(NONE_ID, is_cross=is_cross) for is_cross in (False, True)]
        self._emptied: weakref.WeakSet[Any] = weakref.WeakSet()
        self._n_caches = 0
        self._thread = threading.get_ident()

    def install(self, patches: Patches) -> bool:
        """Watch what caches do between forward passes, once transformers has been imported; whether it has been."""
        module = sys.modules.get(_MODULE)
        cache, layer = getattr(module, "Cache", None), getattr(module, "CacheLayerMixin", None)
        if cache is None or layer is None:
            return False
        wraps = {
            **dict.fromkeys(_CHANGES, self._changing),
            "early_initialization": self._filling,
            "reset": self._resetting,
            "offload": self._offloading,
            "prefetch": self._prefetching,
        }
        for name, wrap in wraps.items():
            plain = vars(cache).get(name)
            if plain is not None:
                patches.set(cache, name, wrap(plain))
        patches.set(layer, "reset", self._resetting_layer(layer.reset))
        return True

    def begins(self, kwargs: Mapping[str, Any]) -> None:
        """A forward pass begins with these arguments."""
        for name in CACHE_NAMES:
            cache = kwargs.get(name)
            if cache is not None:
                with suppress(*UNKNOWN_KIND):
                    for leaf in leaves(cache):
                        self._look_before(leaf)
                    self._note_copies(cache)

    def ended(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """A forward pass ended: note the caches that were passed in or came out."""
        import torch

        has_gradients = torch.is_grad_enabled()
        for name in CACHE_NAMES:
            given, returned = kwargs.get(name), getattr(result, name, None)
            if given is not None:
                with suppress(*UNKNOWN_KIND):
                    self._count(given, n_query_tokens(args, kwargs))
            if not has_gradients:
                for cache in (given, returned) if returned is not given else (given,):
                    self.note(cache)

    def note(self, cache: Any) -> list[tuple[int | None, CacheLeaf]]:
        """Claim, describe and measure a cache as it is now; its parts with their numbers."""
        noted = []
        with suppress(*UNKNOWN_KIND):
            for leaf in leaves(cache):
                known = self._of(leaf)
                self._note_layers(leaf, known)
                noted.append((known.cache_id, leaf))
        return noted

    def _of(self, leaf: CacheLeaf) -> _Known:
        """What is known of a cache; one that is first seen is empty, unless a layer of it has tensors already."""
        if isinstance(leaf.cache, tuple):
            return self._tuples[leaf.is_cross]
        known = self._known.get(leaf.cache)
        if known is None:
            is_used = any(getattr(layer, "is_initialized", False) for layer in layers_of(leaf.cache))
            known = self._known[leaf.cache] = _Known(NONE_ID if is_used else 0, is_cross=leaf.is_cross)
        known.is_cross |= leaf.is_cross
        return known

    def _look_before(self, leaf: CacheLeaf) -> None:
        """Whether a cache that only counts on the device is empty."""
        known = self._of(leaf)
        if known.static is not None and (known.static in self._emptied or not known.static.is_initialized):
            self._emptied.discard(known.static)
            known.n_counted = 0

    def _note_copies(self, cache: Any) -> None:
        """A growing cache that has tensors before it was ever seen is a copy: note those, before they are replaced."""
        import torch

        if torch.is_grad_enabled():
            return
        found = [leaf for leaf in leaves(cache) if not isinstance(leaf.cache, tuple)]
        layers = [layer for leaf in found if self._of(leaf).cache_id is None for layer in layers_of(leaf.cache)]
        if not any(map(is_static, layers)) and any(map(describe_layer, layers)):
            self.note(cache)

    def _count(self, cache: Any, n_tokens: int) -> None:
        for leaf in leaves(cache):
            known = self._of(leaf)
            if known.n_counted != NONE_ID:
                known.n_counted = NONE_ID if n_tokens == NONE_ID else known.n_counted + n_tokens

    def _note_layers(self, leaf: CacheLeaf, known: _Known) -> None:
        """Note every layer, and the cache's length where it has changed."""
        told: dict[int, int] = {}
        for position, layer in enumerate(layers_of(leaf.cache)):
            shape, before = describe_layer(layer), known.layers.get(position)
            if shape is not None:
                self._number(known, leaf.cache)
                self._claim(known, position, layer)
                if shape != before:
                    known.layers[position] = shape
                    self._notes.cache_layer(self._row_id(known), position, shape)
                if known.static is None and is_static(layer):
                    known.static = layer
            elif before is not None:
                shape = before  # it was emptied
            else:
                continue
            n_tokens = tokens_taken_in(layer, is_cross=known.is_cross and known.n_counted != 0)
            told[shape.device] = max(told.get(shape.device, NONE_ID), NONE_ID if n_tokens is None else n_tokens)
        for device, n_tokens in told.items():
            held = known.n_counted if n_tokens == NONE_ID else n_tokens
            if known.lengths.get(device) != held:
                known.lengths[device] = held
                self._notes.cache_length(self._row_id(known), held, device)

    def _claim(self, known: _Known, position: int, layer: Any) -> None:
        for part, tensor in layer_parts(layer):
            label = known.labels.get((position, part))
            if label is None:
                label = cache_label(known.cache_id, position, part, is_cross=known.is_cross)
                known.labels[position, part] = label
            self._notes.claim(tensor, Category.KV_CACHE, label)

    def _number(self, known: _Known, cache: Any) -> None:
        if known.cache_id is None and not isinstance(cache, tuple):
            self._n_caches += 1
            known.cache_id = self._n_caches

    def _row_id(self, known: _Known) -> int:
        return NONE_ID if known.cache_id is None else known.cache_id

    def _changing(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A method after which a cache has other tensors."""
        return self._watched(plain, after=lambda cache, *_: self._note_again(cache))

    def _filling(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A method that gives a cache its tensors, and no tokens."""
        return self._watched(plain, before=lambda cache, *_, **__: self._of(CacheLeaf(cache, is_cross=False)))

    def _resetting(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A method after which a cache is empty."""

        def emptied(cache: Any) -> None:
            known = self._known.get(cache)
            if known is not None:
                known.n_counted = 0
                self._note_again(cache)

        return self._watched(plain, after=emptied)

    def _resetting_layer(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def emptied(layer: Any) -> None:
            if is_static(layer):
                self._emptied.add(layer)

        return self._watched(plain, after=emptied)

    def _note_again(self, cache: Any) -> None:
        known = self._known.get(cache)
        if known is not None and known.cache_id is not None:
            self.note(cache)

    def _offloading(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A layer that is about to go to the host: what it has on the device is the cache's until then."""

        def claim(cache: Any, layer_idx: int, *_: Any) -> None:
            self._claim_offloaded(cache, layer_idx)

        return self._watched(plain, before=claim)

    def _prefetching(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A layer that has come back to the device: the first from a position on that is offloaded at all."""

        def claim(cache: Any, layer_idx: int, only_non_sliding: bool = True) -> None:
            layers = cache.layers
            for step in range(len(layers)):
                position = (layer_idx + step) % len(layers)
                layer = layers[position]
                if hasattr(layer, "keys") and not (only_non_sliding and getattr(layer, "is_sliding", False)):
                    self._claim_offloaded(cache, position)
                    return

        return self._watched(plain, after=claim)

    def _claim_offloaded(self, cache: Any, position: int) -> None:
        import torch

        known, layer = self._known.get(cache), cache.layers[position]
        if known is None or (known.cache_id is None and torch.is_grad_enabled()):
            return
        if describe_layer(layer) is not None:
            self._number(known, cache)
            self._claim(known, position, layer)

    def _watched(
        self,
        plain: Callable[..., Any],
        *,
        before: Callable[..., Any] | None = None,
        after: Callable[..., Any] | None = None,
    ) -> Callable[..., Any]:
        """A method of transformers with something done before or after it, in the thread that is followed."""
        import torch

        is_compiling, get_ident = torch.compiler.is_dynamo_compiling, threading.get_ident

        def watched(subject: Any, *args: Any, **kwargs: Any) -> Any:
            if is_compiling() or get_ident() != self._thread:
                return plain(subject, *args, **kwargs)
            if before is not None:
                with suppress(*UNKNOWN_KIND):
                    before(subject, *args, **kwargs)
                self._notes.flush()
            result = plain(subject, *args, **kwargs)
            if after is not None:
                with suppress(*UNKNOWN_KIND):
                    after(subject, *args, **kwargs)
                self._notes.flush()
            return result

        return watched
