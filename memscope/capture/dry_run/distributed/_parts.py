"""What programs of many processes need of the dry run that they run in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from memscope.trace.categories import Category

Handler = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""Runs an operation in its place; answers ``NotImplemented`` where the operation itself does what is wanted."""


class DryRunParts(Protocol):
    """A dry run under way, as seen from here."""

    def is_on_device(self, value: object) -> bool:
        """Whether this is a tensor on the simulated device."""

    def is_without_memory(self, value: object) -> bool:
        """Whether this is a tensor without memory, on the device or on the host."""

    def handle(self, find: Callable[[Any], Handler | None]) -> None:
        """Ask, once for each operation of torch, what runs it in its place."""

    def aside(self) -> AbstractContextManager[None]:
        """A block in which torch works out shapes for itself: nothing of it is on the device."""

    def leaving(self) -> AbstractContextManager[None]:
        """A block in which a copy on the host is asked for."""

    def making(self, *, is_on_device: bool, category: Category, label: str) -> AbstractContextManager[None]:
        """A block of C++ that makes tensors without saying where; and whose they are."""

    def new(self, shape: Sequence[int], dtype: Any) -> Any:
        """A tensor on the device, whose allocation is in the trace."""

    def own(self, tensor: Any, category: Category, label: str) -> None:
        """Say whose a tensor's allocation is, for good."""

    def place(self) -> str:
        """The path of the module that runs, or the phase."""

    def value_of(self, tensor: Any) -> Any:
        """The values of a tensor without memory, None if they are not known."""

    def give(self, tensor: Any, value: Any) -> None:
        """Say what a tensor without memory holds from now on; None is "not known"."""
