"""``memscope.tag`` and ``memscope.register_kv_cache``: a program says whose its memory is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from memscope.capture.kv_caches import CacheLeaf, leaf_tensors, leaves
from memscope.capture.recorder import RecordingBackend, backend_under_way
from memscope.errors import UsageError

if TYPE_CHECKING:
    import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Tensor = TypeVar("_Tensor", bound="torch.Tensor")


class _Tag:
    """What :func:`tag` with a name returns."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._entered: list[RecordingBackend | None] = []

    def __enter__(self) -> None:
        backend = backend_under_way()
        self._entered.append(backend)
        if backend is not None:
            backend.push_tag(self._name)

    def __exit__(self, *_: object) -> None:
        backend = self._entered.pop()
        if backend is not None:
            backend.pop_tag()

    def __call__(self, function: _Function) -> _Function:
        """Tag everything that a function allocates."""

        @functools.wraps(function)
        def tagged(*args: Any, **kwargs: Any) -> Any:
            with _Tag(self._name):
                return function(*args, **kwargs)

        return tagged  # type: ignore[return-value]


@overload
def tag(what: str) -> _Tag: ...


@overload
def tag(what: _Tensor, name: str) -> _Tensor: ...


def tag(what: Any, name: str | None = None) -> Any:
    """Tag memory: ``with tag("kv_cache"): …``, ``@tag("kv_cache")``, or ``tag(tensor, "kv_cache")``.

    The name of a category (``weights``, ``kv_cache``, …) puts the memory there, as does ``category: label``; other text
    is a label. Where nothing is being recorded, nothing happens.

    Raises
    ------
    UsageError
        If the arguments are neither a name, nor a tensor and a name.
    """
    if isinstance(what, str) and name is None:
        return _Tag(what)
    if name is None or not hasattr(what, "untyped_storage"):
        raise UsageError('tag takes a name, or a tensor and a name: tag("kv_cache"), tag(tensor, "kv_cache")')
    backend = backend_under_way()
    if backend is not None:
        backend.tag(what, name)
    return what


def register_kv_cache(cache: Any) -> None:
    """Say which tensors are an engine's key/value cache, once it has allocated them.

    Caches that are passed to a Hugging Face model are found by themselves. Of a transformers ``Cache`` it is noted how
    its layers keep tokens, and how many it holds now: a loop that calls the layers of a model by itself can say so
    after each step. Where nothing is being recorded, nothing happens.

    Parameters
    ----------
    cache
        A tensor, or lists, tuples, dictionaries or a transformers ``Cache`` of tensors, nested in any way; a tensor's
        place in it becomes its label.

    Raises
    ------
    UsageError
        If there is no tensor in it.
    """
    backend = backend_under_way()
    found = list(_tensors_in(cache, "", backend))
    if not found:
        raise UsageError(
            f"register_kv_cache takes tensors, or containers of tensors: a {type(cache).__name__} has none"
        )
    if backend is not None:
        for label, tensor in found:
            backend.tag(tensor, f"kv_cache: {label}" if label else "kv_cache")


def _tensors_in(value: Any, place: str, backend: RecordingBackend | None) -> Iterator[tuple[str, Any]]:
    """The tensors in nested containers, each with its place."""
    if hasattr(value, "untyped_storage"):
        yield place, value
        return
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        noted = [] if backend is None else backend.know_cache(value)
        items = [part for number, leaf in noted or _unnumbered(value) for part in leaf_tensors(leaf, number)]
    for key, part in items:
        yield from _tensors_in(part, f"{place} {key}".strip(), backend)


def _unnumbered(cache: Any) -> list[tuple[int | None, CacheLeaf]]:
    return [(None, leaf) for leaf in leaves(cache)]
