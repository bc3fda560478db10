"""What a dry run does with what the watcher finds: it decides at once whose an allocation is."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run._operations import OperationRouter
from memscope.capture.dry_run._redirect import conversion
from memscope.capture.dry_run._storages import OwnerBook, RunContext, StorageTable
from memscope.capture.kv_caches import LayerShape
from memscope.capture.ownership import ModulePaths, buffer_category
from memscope.capture.patches import Patches
from memscope.capture.watcher import Call, RunOutermost
from memscope.trace.categories import Category
from memscope.trace.schema import MarkKind


class DryRunSink:
    """Claims allocations in the trace that is being made, before its next event.

    Parameters
    ----------
    context, storages, owners, router
        The parts of the dry run.
    paths
        What modules are called.
    on_move
        Called when a module is moved or converted.
    """

    looks_again = True
    guesses = False

    def __init__(
        self,
        context: RunContext,
        storages: StorageTable,
        owners: OwnerBook,
        router: OperationRouter,
        *,
        paths: ModulePaths,
        on_move: Callable[[], None],
    ) -> None:
        import torch

        self.running = context.running
        self._context = context
        self._storages = storages
        self._owners = owners
        self._router = router
        self._paths = paths
        self._on_move = on_move
        self._n_moving = 0
        self.call_mode: Any = None
        """The function mode of the dry run, to be switched on again where torch has switched it off."""
        self._count_call_modes: Callable[[], int] = torch._C._len_torch_function_stack

    def install(self, patches: Patches) -> None:
        """Have parameters keep their identity, functions run eagerly, and kernels be chosen as on CUDA."""
        import torch
        from torch._subclasses.fake_tensor import FakeTensor
        from torch.nn.modules import module as modules
        from torch.optim import optimizer as optimizers
        from torch.utils import _foreach_utils as foreach_utils

        patches.set(torch.nn.Module, "_apply", conversion(self._converted, self._moving))
        patches.set(torch.autograd, "backward", self._accumulating(torch.autograd.backward))
        patches.set(torch.autograd, "grad", self._accumulating(torch.autograd.grad))
        patches.set(torch, "compile", _uncompiled)
        patches.set(torch.nn.Module, "compile", lambda *_, **__: None)
        patches.set(torch.UntypedStorage, "resize_", self._watched_resize(torch.UntypedStorage.resize_))
        patches.call_at_end(modules.register_module_parameter_registration_hook(self._registered).remove)
        for owner in (optimizers, foreach_utils):
            supported = [*owner._foreach_supported_types, FakeTensor]
            patches.set(owner, "_foreach_supported_types", supported)
        if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::silu_backward", "CUDA"):
            patches.call_at_end(_declare_kernels()._destroy)
        torch._C._autograd._push_saved_tensors_default_hooks(self._saved, lambda packed: packed)
        patches.call_at_end(torch._C._autograd._pop_saved_tensors_default_hooks)

    def watched_call(self, call: Call, run_outermost: RunOutermost) -> Call:
        """``Module.__call__`` that keeps the path of what is running."""
        thread, get_ident = threading.get_ident(), threading.get_ident

        def watched(module: Any, *args: Any, **kwargs: Any) -> Any:
            if get_ident() != thread:
                return call(module, *args, **kwargs)
            if self.running:
                return self.run(call, module, args, kwargs)
            return run_outermost(call, module, args, kwargs)

        return watched

    def run(self, call: Call, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a module: Python code of a user, also where the autograd engine calls it."""
        router = self._router
        outer = router.is_accumulating, router.call_has_device
        router.is_accumulating = router.call_has_device = False
        self.running.append(module)
        try:
            if self._count_call_modes():
                return call(module, *args, **kwargs)
            with self.call_mode:  # inside a call that a mode handles, such as backward, torch has switched it off
                return call(module, *args, **kwargs)
        finally:
            self.running.pop()
            router.is_accumulating, router.call_has_device = outer

    def refer(self, parameter: Any) -> weakref.ref[Any]:
        """A weak reference: what a dry run does to parameters allows it."""
        return weakref.ref(parameter)

    def claim(self, tensor: Any, category: Category, label: str) -> None:
        """Whose a tensor's allocation is; of one that wraps others, such as a shard, theirs."""
        if self._router.is_device_tensor(tensor):
            allocation = self._storages.of(tensor)
            if allocation is not None:
                self._owners.claim(allocation, category, label, tensor)
        else:
            for inner in wrapped_by(tensor):
                self.claim(inner, category, label)

    def saved(self) -> tuple[tuple[Any, Any], ...]:
        """Nothing: what autograd saves is claimed when it does so."""
        return ()

    def cache_layer(self, cache_id: int, layer: int, shape: LayerShape) -> None:
        """How a layer of a cache keeps its tokens from now on."""
        self._storages.device.builder.add_cache_layer(cache_id=cache_id, layer=layer, **shape._asdict())

    def cache_length(self, cache_id: int, n_tokens: int, device: int) -> None:
        """Tokens of each sequence that a cache has taken in."""
        simulated = self._storages.device
        simulated.builder.add_cache_length(cache_id, n_tokens, simulated.clock(), device=device)

    def flush(self) -> None:
        """All is written already."""

    def mark(self, kind: MarkKind, label: str, *, is_automatic: bool = False) -> None:
        """A phase begins or ends, or a step ended."""
        self._context.mark(kind, label, is_automatic=is_automatic)

    def raised(self, error: Exception) -> None:
        """Nothing: an out-of-memory error of a dry run has its line from the start."""

    def moved_to_device(self, tensor: Any) -> None:
        """A tensor was copied to the device: an input, unless a module's own is being moved."""
        if not self._n_moving and not self._context.serial:
            self.claim(tensor, Category.INPUTS, "copied to the device")

    def _registered(self, module: Any, name: str, tensor: Any) -> None:
        if tensor is not None:
            self.claim(tensor, Category.WEIGHTS, f"{type(module).__name__}.{name}")

    def _converted(self, module: Any, name: str, tensor: Any) -> None:
        category = buffer_category(module, name) if name in module._buffers else Category.WEIGHTS
        self.claim(tensor, category, f"{self._paths.of(module)}.{name}")

    def _moving(self, change: int) -> None:
        self._n_moving += change
        self._on_move()

    def _saved(self, tensor: Any) -> Any:
        """Claim what the autograd graph saves; an output that held its own graph would keep it alive for good."""
        self.claim(tensor, Category.ACTIVATIONS, self._context.place or "saved for backward")
        return tensor if tensor.grad_fn is None else tensor.detach()

    def _accumulating(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        def accumulating(*args: Any, **kwargs: Any) -> Any:
            router = self._router
            outer = router.is_accumulating, router.call_has_device
            router.is_accumulating = router.call_has_device = True
            try:
                return backward(*args, **kwargs)
            finally:
                router.is_accumulating, router.call_has_device = outer

        return accumulating

    def _watched_resize(self, resize: Callable[..., Any]) -> Callable[..., Any]:
        def watched(storage: Any, *args: Any) -> Any:
            result = resize(storage, *args)
            self._storages.resized(storage)
            return result

        return watched


def wrapped_by(tensor: Any) -> list[Any]:
    """The tensors that a tensor of another class wraps; none for one that wraps none."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return []
    return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]


def _uncompiled(model: Any = None, **_: Any) -> Any:
    """``torch.compile`` in a dry run: the function itself, run eagerly; a module is its own original."""
    if hasattr(model, "_parameters"):
        object.__setattr__(model, "_orig_mod", model)  # not as one of its modules
    return _uncompiled if model is None else model


def _declare_kernels() -> Any:
    """Declare CUDA kernels that a CPU build lacks and would replace by several operations, each with its own memory.

    They are never run: a fake tensor's shape rule is.
    """
    import torch

    library = torch.library.Library("aten", "IMPL")
    for name in ("silu_backward", "mish_backward", "native_channel_shuffle", "_fused_rms_norm"):
        if hasattr(torch.ops.aten, name):
            library.impl(name, lambda *inputs: torch.empty_like(inputs[-1]), "CUDA")
    return library
