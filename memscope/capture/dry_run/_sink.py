"""What a dry run does with what the watcher finds: it decides at once whose an allocation is."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from memscope.capture.dry_run._operations import OperationRouter
from memscope.capture.dry_run._redirect import conversion
from memscope.capture.dry_run._storages import OwnerBook, RunContext, StorageTable, parts_of
from memscope.capture.dry_run.surface.flex_attention import compiled_block_mask
from memscope.capture.kv_caches import LayerShape
from memscope.capture.ownership import STRENGTH, ModulePaths, buffer_category, cache_category
from memscope.capture.patches import Patches
from memscope.capture.stacks import StackRecorder
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
    stacks
        Told of the frames that stay as they are while a module runs.
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
        stacks: StackRecorder,
        on_move: Callable[[], None],
    ) -> None:
        import torch

        self.running = context.running
        self._context = context
        self._storages = storages
        self._owners = owners
        self._router = router
        self._paths = paths
        self._stacks = stacks
        self._on_move = on_move
        self._n_moving = 0
        self.has_compiled = False
        """Whether the program asked for anything to be compiled."""
        self.call_mode: Any = None
        """The function mode of the dry run, to be switched on again where torch has switched it off."""
        self._has_gradients: Callable[[], bool] = torch.is_grad_enabled
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
        applied = torch.autograd.function.BackwardCFunction
        patches.set(applied, "apply", self._as_program(applied.apply))
        frame = getattr(torch.utils.checkpoint, "_CheckpointFrame", None)
        if frame is not None:
            patches.set(frame, "__init__", self._recomputing(frame.__init__))
        patches.set(torch, "compile", self._uncompiled)
        patches.set(torch.nn.Module, "compile", self._compiled_in_place)
        patches.set(torch.UntypedStorage, "resize_", self._watched_resize(torch.UntypedStorage.resize_))
        patches.call_at_end(modules.register_module_parameter_registration_hook(self._registered).remove)
        patches.set(torch.nn.Module, "register_buffer", self._registering(torch.nn.Module.register_buffer))
        patches.call_at_end(modules.register_module_buffer_registration_hook(self._replaced).remove)
        plain_data: Any = torch.Tensor.data  # by now the one that lets host tensors become device tensors
        patches.set(torch.Tensor, "data", property(plain_data.__get__, self._data_setter(plain_data.__set__)))
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
        running, run = self.running, self.run

        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:  # the profiler looks for a local called self
            if get_ident() != thread:
                return call(self, *args, **kwargs)
            if running:
                return run(call, self, args, kwargs)
            return run_outermost(call, self, args, kwargs)

        return watched

    def run(self, call: Call, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a module: Python code of a user, also where the autograd engine calls it."""
        router = self._router
        outer = router.is_accumulating, router.call_has_device
        router.is_accumulating = router.call_has_device = False
        self.running.append(module)
        self._stacks.hold()
        try:
            if self._count_call_modes():
                return call(module, *args, **kwargs)
            with self.call_mode:  # inside a call that a mode handles, such as backward, torch has switched it off
                return call(module, *args, **kwargs)
        finally:
            self._stacks.let_go()
            self.running.pop()
            router.is_accumulating, router.call_has_device = outer

    def _as_program(self, function: Call) -> Call:
        """A function of the program's that the autograd engine calls: a gradient's formula, a recomputation."""
        router = self._router

        def called(*args: Any, **kwargs: Any) -> Any:
            outer = router.is_accumulating, router.call_has_device
            router.is_accumulating = router.call_has_device = False
            try:
                if self._count_call_modes():
                    return function(*args, **kwargs)
                with self.call_mode:
                    return function(*args, **kwargs)
            finally:
                router.is_accumulating, router.call_has_device = outer

        return called

    def _recomputing(self, init: Call) -> Call:
        def made(frame: Any, recompute_fn: Any, *args: Any, **kwargs: Any) -> None:
            init(frame, self._as_program(recompute_fn), *args, **kwargs)

        return made

    def refer(self, parameter: Any) -> weakref.ref[Any]:
        """A weak reference: what a dry run does to parameters allows it."""
        return weakref.ref(parameter)

    def claim(self, tensor: Any, category: Category, label: str) -> None:
        """Whose a tensor's allocation is; of one that wraps others, such as a shard, theirs."""
        if self._router.is_device_tensor(tensor):
            for part in parts_of(tensor):
                allocation = self._storages.of(part)
                if allocation is not None:
                    self._owners.claim(allocation, category, label, part)
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

    def _registering(self, register: Callable[..., None]) -> Callable[..., None]:
        """``register_buffer``, which says last of all whether checkpoints hold the buffer."""

        def registering(module: Any, name: str, tensor: Any, persistent: bool = True) -> None:
            register(module, name, tensor, persistent)
            self._claim_buffer(module, name)

        return registering

    def _replaced(self, module: Any, name: str, tensor: Any) -> None:
        """A buffer is about to get another tensor; a new one is claimed once it is registered."""
        if tensor is not None and name in module._buffers:
            self._claim_buffer(module, name, tensor)

    def _claim_buffer(self, module: Any, name: str, tensor: Any = None) -> None:
        tensor = module._buffers[name] if tensor is None else tensor
        if tensor is None:
            return
        category = buffer_category(module, name)
        if category in (Category.KV_CACHE, Category.ACTIVATIONS):
            is_trained = bool(self.running) and self._has_gradients()
            category = Category.ACTIVATIONS if is_trained else cache_category(tensor)
        self.claim(tensor, category, f"{self._paths.of(module)}.{name}")

    def _data_setter(self, set_data: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        """``parameter.data = tensor``: what fills the new memory is the parameter, as what filled the old one was."""

        def setter(tensor: Any, value: Any) -> None:
            before = self._storages.of(tensor) if self._is_whole_parameter(tensor) else None
            set_data(tensor, value)
            if before is not None and before.rank == STRENGTH[Category.WEIGHTS] and self._is_whole_parameter(tensor):
                self.claim(tensor, Category.WEIGHTS, before.label)

        return setter

    def _is_whole_parameter(self, tensor: Any) -> bool:
        """Whether a parameter on the device fills its memory: of a part of a larger piece the whole is another's."""
        if not getattr(tensor, "_is_param", False) or not self._router.is_device_tensor(tensor):
            return False
        allocation = self._storages.of(tensor)
        return allocation is not None and allocation.requested_bytes == tensor.numel() * tensor.element_size()

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
            router.is_accumulating = True
            router.call_has_device = len(self._storages) > 0 or any(map(router.is_device_tensor, args))
            try:
                return backward(*args, **kwargs)
            finally:
                router.is_accumulating, router.call_has_device = outer

        return accumulating

    def _uncompiled(self, model: Any = None, *, backend: Any = "inductor", **_: Any) -> Any:
        """``torch.compile``: the function itself, run eagerly; a module is its own original."""
        self.has_compiled = self.has_compiled or backend == "inductor"
        if hasattr(model, "_parameters"):
            object.__setattr__(model, "_orig_mod", model)  # not as one of its modules
        if model is None:
            return self._uncompiled
        return compiled_block_mask(model) or model

    def _compiled_in_place(self, *_: Any, **__: Any) -> None:
        self.has_compiled = True

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
