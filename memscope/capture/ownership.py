"""Whose memory is: which claim is the strongest, what a tag means, what parts of a model are called."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from memscope.trace.categories import Category

if TYPE_CHECKING:
    import torch

_PRECEDENCE = (
    Category.WEIGHTS,
    Category.GRADIENTS,
    Category.OPTIMIZER_STATE,
    Category.KV_CACHE,
    Category.COMMUNICATION,
    Category.WORKSPACE,
    Category.INPUTS,
    Category.ACTIVATIONS,
    Category.TEMPORARIES,
    Category.UNKNOWN,
)
"""Strongest first: a weight or an input that is also saved for backward stays what it is."""
STRENGTH = {category: rank for rank, category in enumerate(_PRECEDENCE)}


_CACHE_NAME = re.compile(
    r"^_?(past_?)?(kv|k|v|keys?|values?)_?(cached?|caches)(_?\d+)?$|^_?(cached?|past)_?(kv|k|v|keys?|values?)(_?\d+)?$"
)
"""What modules call the keys and values that they keep: ``cache_k`` (Llama, Mistral), ``k_cache`` (gpt-fast)."""


def named_buffers(
    model: torch.nn.Module, renamed: Mapping[str, str] | None = None
) -> Iterator[tuple[str, torch.Tensor, Category]]:
    """A model's buffers with what each is; and of its modules' plain tensors those that are called a cache.

    ``renamed`` has the paths of modules that go by another one, as :meth:`ModulePaths.in_larger` finds them.
    """
    for own_path, module in model.named_modules():
        path = (renamed or {}).get(own_path, own_path)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                yield joined(path, name), buffer, buffer_category(module, name)
        for name, value in vars(module).items():
            if is_cache_name(name) and hasattr(value, "untyped_storage"):
                yield joined(path, name), value, cache_category(value)


def buffer_category(module: torch.nn.Module, name: str) -> Category:
    """What a buffer is: a cache if called one, a weight if checkpoints hold it, else workspace (tables, masks)."""
    if is_cache_name(name):
        return cache_category(module._buffers[name])
    return Category.WORKSPACE if name in module._non_persistent_buffers_set else Category.WEIGHTS


@lru_cache(maxsize=4096)
def is_cache_name(name: str) -> bool:
    """Whether an attribute is called as keys and values are."""
    return _CACHE_NAME.search(name) is not None


def cache_category(tensor: torch.Tensor | None) -> Category:
    """What a tensor that is called a cache is: an activation while a graph keeps what was written into it."""
    return Category.KV_CACHE if tensor is None or tensor.grad_fn is None else Category.ACTIVATIONS


class ModulePaths:
    """Where modules are in the models that were learnt; one of no such model goes by the name of its type.

    A part that is also called by itself, as a checkpoint does to compute it again, keeps its place in the largest.
    """

    def __init__(self) -> None:
        self._places: weakref.WeakKeyDictionary[Any, tuple[int, str]] = weakref.WeakKeyDictionary()

    def learn(self, model: Any) -> int:
        """Learn a model's modules; how many it has."""
        named = list(model.named_modules())
        for path, module in named:
            with suppress(TypeError):  # it cannot be referred to weakly
                rank, known = self._places.get(module, (0, ""))
                if rank < len(named) or (rank == len(named) and (path or not known)):
                    self._places[module] = len(named), path
        return len(named)

    def of(self, module: Any) -> str:
        """A module's path."""
        return self._places.get(module, (0, ""))[1] or type(module).__name__

    def in_larger(self, model: Any) -> dict[str, str]:
        """The model's modules that are part of a larger one that was learnt: path in this one, path in the larger."""
        named = list(model.named_modules())
        found = {}
        for path, module in named:
            with suppress(TypeError):
                rank, known = self._places.get(module, (0, ""))
                if rank > len(named):
                    found[path] = known
        return found


def joined(path: str, name: str) -> str:
    """What a module's tensor is called: its name after the module's path, which is empty for the model itself."""
    return f"{path}.{name}" if path else name


def reference_to(item: Any) -> Callable[[], Any]:
    """A weak reference; what has none is kept alive."""
    try:
        return weakref.ref(item)
    except TypeError:
        return lambda: item


class WeakCollection:
    """Objects by identity, in the order of a rank and then of their coming, for as long as the program keeps them."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, Callable[[], Any]]] = {}

    def __contains__(self, item: object) -> bool:
        held = self._held.get(id(item))
        return held is not None and held[1]() is item

    def __iter__(self) -> Iterator[Any]:
        for _, reference in sorted(self._held.values(), key=lambda held: held[0]):
            item = reference()
            if item is not None:
                yield item

    def add(self, item: Any, rank: int = 0) -> None:
        """Take an object in."""
        self._held = {key: held for key, held in self._held.items() if held[1]() is not None}
        self._held[id(item)] = rank, reference_to(item)
