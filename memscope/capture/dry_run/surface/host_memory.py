"""Pinned and shared memory of the host in a dry run: nothing is pinned or shared, and what asks is told that it is."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run.surface.appearance import DeviceTensors
from memscope.capture.patches import Patches


class HostMemory:
    """Remembers which memory of the host a program believes to be pinned.

    Parameters
    ----------
    tensors
        What tells device tensors.
    fake_type
        The class of tensors without values.
    """

    def __init__(self, tensors: DeviceTensors, fake_type: type) -> None:
        self._tensors = tensors
        self._fake_type = fake_type
        self._pinned: dict[int, weakref.finalize[Any, Any]] = {}

    def install(self, patches: Patches) -> None:
        """Put the replacements in place."""
        import torch

        tensor = torch.Tensor
        patches.set(tensor, "pin_memory", self._pin(tensor.pin_memory))
        patches.set(tensor, "is_pinned", self._is_pinned(tensor.is_pinned))
        patches.set(tensor, "share_memory_", self._share(tensor.share_memory_))
        patches.set(tensor, "is_shared", self._is_shared(tensor.is_shared))

    def is_pinned(self, tensor: Any) -> bool:
        """Whether the program pinned the memory that a tensor lies in."""
        return bool(self._pinned) and tensor.untyped_storage()._cdata in self._pinned

    def note(self, tensor: Any) -> Any:
        """The program made a tensor in pinned memory."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._pinned:
            finalizer = weakref.finalize(storage, self._pinned.pop, key, None)
            finalizer.atexit = False
            self._pinned[key] = finalizer
        return tensor

    def _pin(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def pin_memory(tensor: Any, *_: Any, **__: Any) -> Any:
            if self._tensors.is_device_tensor(tensor):
                return plain(tensor)
            if self.is_pinned(tensor):
                return tensor
            return self.note(tensor.detach().clone())

        return pin_memory

    def _is_pinned(self, plain: Callable[..., bool]) -> Callable[..., bool]:
        def is_pinned(tensor: Any, *_: Any, **__: Any) -> bool:
            if self._tensors.is_tracing:
                return plain(tensor)
            return not self._tensors.is_device_tensor(tensor) and self.is_pinned(tensor)

        return is_pinned

    def _share(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def share_memory_(tensor: Any) -> Any:
            return tensor if isinstance(tensor, self._fake_type) else plain(tensor)

        return share_memory_

    def _is_shared(self, plain: Callable[..., bool]) -> Callable[..., bool]:
        def is_shared(tensor: Any) -> bool:
            return True if self._tensors.is_device_tensor(tensor) else plain(tensor)

        return is_shared
