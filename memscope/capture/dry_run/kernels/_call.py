"""A call of an operation as its kernel sees it, and what the kernel takes beside its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Sizes = list[Any]
"""Bytes of requests that are held together, in order; among them a list for what is taken and released there, a tuple
for what is kept until the outermost list ends, and :data:`PRODUCT`."""
PRODUCT = object()
"""Where a kernel multiplies for the first time, with all the workspaces that this needs."""


class Scratch(NamedTuple):
    """What a kernel takes: ``before`` its results are allocated, and ``after``; all is released when it has run.

    ``result_bytes`` is what the first result's memory has where that is more than its elements need, else 0.
    """

    after: Sizes
    before: Sizes = []  # noqa: RUF012  (never written to)
    result_bytes: int = 0


Kernel = Callable[["Call"], Scratch]
_positions: dict[Any, dict[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an ATen operation on the device, and its result.

    Attributes
    ----------
    func, args, kwargs, result
        The operation, what it was given, and what it made.
    n_multiprocessors
        Of the device.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    n_multiprocessors: int = 108

    def get(self, name: str, default: Any = None) -> Any:
        """An argument by its name in the operation's schema; the default where it was not given."""
        if name in self.kwargs:
            return self.kwargs[name]
        positions = _positions.get(self.func)
        if positions is None:
            names = (argument.name for argument in self.func._schema.arguments)
            positions = _positions[self.func] = {name: position for position, name in enumerate(names)}
        position = positions.get(name)
        return self.args[position] if position is not None and position < len(self.args) else default

    @property
    def results(self) -> tuple[Any, ...]:
        """The results, one or several."""
        return tuple(self.result) if isinstance(self.result, tuple | list) else (self.result,)


def nbytes(tensor: Any) -> int:
    """Bytes of a tensor's elements."""
    return int(tensor.numel()) * int(tensor.element_size())
