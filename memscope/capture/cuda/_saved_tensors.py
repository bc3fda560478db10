"""The tensors that autograd saves for the backward pass, as long as it keeps them."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from memscope.capture.patches import Patches


class SavedTensors:
    """Sees each tensor that is saved in this thread, unless the program's own hooks do something else with it.

    Parameters
    ----------
    running
        The modules that are running, the innermost last.
    visits
        When a module's backward begins is added to it: nanoseconds since the epoch, a weak reference to it.
    """

    def __init__(self, running: Sequence[Any], visits: list[Any]) -> None:
        self._running = running
        self._visits = visits
        self._saved: list[Any] = []
        """A weak reference to each tensor and the module that ran, in turn: no tuples for the garbage collector."""

    def install(self, patches: Patches) -> None:
        """Start to look."""
        from torch._C import _autograd

        pack, unpack = self._packer(), self._unpacker()
        _autograd._push_saved_tensors_default_hooks(pack, unpack)
        patches.call_at_end(_autograd._pop_saved_tensors_default_hooks)
        disable, enable = _autograd._saved_tensors_hooks_disable, _autograd._saved_tensors_hooks_enable
        n_stepped_aside: list[bool] = []

        def disabled(*args: Any, **kwargs: Any) -> None:
            """``torch.func`` refuses to work beside hooks: step aside."""
            top = _autograd._top_saved_tensors_default_hooks(True)
            is_own = top is not None and top[0] is pack
            if is_own:
                _autograd._pop_saved_tensors_default_hooks()
            try:
                disable(*args, **kwargs)
            except BaseException:
                if is_own:
                    _autograd._push_saved_tensors_default_hooks(pack, unpack)
                raise
            if is_own:
                n_stepped_aside.append(True)

        def enabled() -> None:
            enable()
            if n_stepped_aside:
                n_stepped_aside.pop()
                _autograd._push_saved_tensors_default_hooks(pack, unpack)

        patches.set(_autograd, "_saved_tensors_hooks_disable", disabled)
        patches.set(_autograd, "_saved_tensors_hooks_enable", enabled)

    def take(self) -> Iterator[tuple[Any, Any]]:
        """What was saved since the last time and is still kept, and the module that ran then, if one did."""
        saved = self._saved[:]
        self._saved.clear()
        for reference, module in zip(saved[::2], saved[1::2], strict=True):
            tensor = reference()
            if tensor is not None:
                yield tensor, module

    def _packer(self) -> Callable[[Any], Any]:
        save, running, ref = self._saved.extend, self._running, weakref.ref

        def pack(tensor: Any) -> Any:
            if tensor.grad_fn is not None:
                tensor = tensor.detach()  # an output that held its own graph would keep it alive for good
            elif tensor.requires_grad or not tensor.is_cuda:
                return tensor
            if not running:
                save((ref(tensor), None))
                return tensor
            module = running[-1]
            save((ref(tensor), module))
            return tensor, ref(module)  # the graph must not keep the module alive

        return pack

    def _unpacker(self) -> Callable[[Any], Any]:
        visits, visit, now = self._visits, self._visits.extend, time.time_ns

        def unpack(packed: Any) -> Any:
            if type(packed) is not tuple:
                return packed
            tensor, module = packed
            if not visits or visits[-1] is not module:
                visit((now(), module))
            return tensor

        return unpack
