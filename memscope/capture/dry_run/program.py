"""What the program is doing: modules that run, backward passes, optimizer steps, caches; and what belongs to them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from memscope.capture.cache_watch import CacheWatch
from memscope.capture.dry_run.operations import OperationRouter
from memscope.capture.dry_run.storages import StorageTable
from memscope.capture.kv_caches import LayerShape
from memscope.capture.ownership import OwnerBook, buffer_category, named_buffers
from memscope.capture.patches import Patches
from memscope.capture.phases import PhaseTracker
from memscope.errors import CaptureError
from memscope.trace.categories import Category

if TYPE_CHECKING:
    import torch

_GENERATION = "transformers.generation.utils"


class ProgramWatcher:
    """Follows a training or inference program from the outside and claims its memory by identity.

    Parameters
    ----------
    storages, owners, phases, router
        The parts of the dry run.
    patches
        Where changes to torch are written down to be undone.
    """

    def __init__(
        self,
        storages: StorageTable,
        owners: OwnerBook,
        phases: PhaseTracker,
        router: OperationRouter,
        patches: Patches,
    ) -> None:
        import torch

        self._storages = storages
        self._owners = owners
        self._phases = phases
        self._router = router
        self._patches = patches
        self._paths: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._roots: weakref.WeakSet[Any] = weakref.WeakSet()
        self._optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._names: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._first_optimizer: weakref.ref[Any] | None = None
        self._depth = 0
        self._n_moving = 0
        self._watches_generation = False
        self.caches = CacheWatch(_CacheNotes(self._claim, storages))
        self.call_mode: Any = None
        """The function mode of the dry run, to be switched on again where torch has switched it off."""
        self._count_call_modes: Callable[[], int] = torch._C._len_torch_function_stack

    def install(self) -> None:
        """Start to watch."""
        import torch
        from torch._subclasses.fake_tensor import FakeTensor
        from torch.nn.modules import module as modules
        from torch.optim import optimizer as optimizers
        from torch.utils import _foreach_utils as foreach_utils

        patches = self._patches
        patches.set(torch.nn.Module, "__call__", self._watched_call(torch.nn.Module.__call__))
        patches.set(torch.nn.Module, "_apply", _conversion(self._converted, self._moving))
        patches.set(torch.autograd, "backward", self._watched_backward(torch.autograd.backward))
        patches.set(torch.autograd, "grad", self._watched_backward(torch.autograd.grad))
        patches.set(torch, "compile", _uncompiled)
        patches.set(torch.nn.Module, "compile", lambda *_, **__: None)
        patches.set(torch.UntypedStorage, "resize_", self._watched_resize(torch.UntypedStorage.resize_))
        for handle in (
            modules.register_module_parameter_registration_hook(self._registered),
            optimizers.register_optimizer_step_pre_hook(self._optimizer_begins),
            optimizers.register_optimizer_step_post_hook(self._optimizer_ends),
        ):
            patches.call_at_end(handle.remove)
        for owner in (optimizers, foreach_utils):
            supported = [*owner._foreach_supported_types, FakeTensor]
            patches.set(owner, "_foreach_supported_types", supported)
        if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::silu_backward", "CUDA"):
            patches.call_at_end(_declare_kernels()._destroy)
        torch._C._autograd._push_saved_tensors_default_hooks(self._saved, lambda packed: packed)
        patches.call_at_end(torch._C._autograd._pop_saved_tensors_default_hooks)
        self._watch_generation()

    def know_model(self, model: torch.nn.Module) -> None:
        """Learn a model's names and claim its parameters and buffers."""
        if model not in self._roots:
            self._roots.add(model)
            for name, module in model.named_modules():
                if name or module not in self._paths:
                    self._paths[module] = name or type(module).__name__
        for name, parameter in model.named_parameters():
            self._names[id(parameter)] = weakref.ref(parameter), name
            self._claim(parameter, Category.WEIGHTS, name)
        for name, buffer, category in named_buffers(model):
            self._claim(buffer, category, name)

    def know_optimizer(self, optimizer: Any) -> None:
        """Learn which parameters an optimizer steps."""
        if self._first_optimizer is None:
            self._first_optimizer = weakref.ref(optimizer)
        self._optimizers.add(optimizer)
        for group, settings in enumerate(optimizer.param_groups):
            for position, parameter in enumerate(settings["params"]):
                if self._name_of(parameter) is None:
                    name = f"parameter {position} of group {group}"
                    self._names[id(parameter)] = weakref.ref(parameter), name
                    self._claim(parameter, Category.WEIGHTS, name)

    def claim_everything(self) -> None:
        """Claim what can be found now: weights, gradients, optimizer states."""
        for root in list(self._roots):
            self.know_model(root)
        self._claim_gradients()
        for optimizer in list(self._optimizers):
            self._claim_states(optimizer)

    def moved_to_device(self, tensor: Any) -> None:
        """A tensor was copied to the device: an input, unless a module's own is being moved."""
        if not self._n_moving and not self._phases.serial:
            self._claim(tensor, Category.INPUTS, "copied to the device")

    def _claim(self, tensor: Any, category: Category, label: str) -> None:
        if self._router.is_device_tensor(tensor):
            allocation = self._storages.of(tensor)
            if allocation is not None:
                self._owners.claim(allocation, category, label)

    def _claim_input(self, value: Any, label: str) -> None:
        """What the outermost module is given is an input, unless another module's graph made it."""
        if self._router.is_device_tensor(value) and value.grad_fn is None:
            self._claim(value, Category.INPUTS, label)

    def _name_of(self, parameter: Any) -> str | None:
        known = self._names.get(id(parameter))
        return known[1] if known is not None and known[0]() is parameter else None

    def _registered(self, module: Any, name: str, tensor: Any) -> None:
        if tensor is not None:
            self._claim(tensor, Category.WEIGHTS, f"{type(module).__name__}.{name}")
        if not self._watches_generation:
            self._watch_generation()

    def _converted(self, module: Any, name: str, tensor: Any) -> None:
        path = self._paths.get(module)
        category = buffer_category(module, name) if name in module._buffers else Category.WEIGHTS
        self._claim(tensor, category, f"{path or type(module).__name__}.{name}")

    def _moving(self, change: int) -> None:
        self._n_moving += change
        if not self._watches_generation:
            self._watch_generation()

    def _saved(self, tensor: Any) -> Any:
        """Claim what the autograd graph saves; an output that held its own graph would keep it alive for good."""
        self._claim(tensor, Category.ACTIVATIONS, self._phases.place or "saved for backward")
        return tensor if tensor.grad_fn is None else tensor.detach()

    def _watched_call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(module: Any, *args: Any, **kwargs: Any) -> Any:
            if self._depth:
                path = self._paths.get(module)
                if path is None:
                    path = type(module).__name__
                return self._run_module(call, path, module, args, kwargs)
            return self._run_outermost(call, module, args, kwargs)

        return watched

    def _run_module(
        self, call: Callable[..., Any], path: str, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        router = self._router
        outer = router.is_accumulating, router.call_has_device
        router.is_accumulating = router.call_has_device = False
        self._depth += 1
        self._phases.enter_module(path)
        try:
            if self._count_call_modes():
                return call(module, *args, **kwargs)
            with self.call_mode:  # inside a call that a mode handles, such as backward, torch has switched it off
                return call(module, *args, **kwargs)
        finally:
            self._phases.leave_module()
            self._depth -= 1
            router.is_accumulating, router.call_has_device = outer

    def _run_outermost(
        self, call: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.know_model(module)
        for position, value in enumerate(args):
            self._claim_input(value, f"argument {position}")
        for name, value in kwargs.items():
            self._claim_input(value, name)
        self.caches.begins(kwargs)
        with self._phases.phase("forward"):
            result = self._run_module(call, self._paths[module], module, args, kwargs)
        self.caches.ended(args, kwargs, result)
        return result

    def _watched_backward(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            router = self._router
            outer = router.is_accumulating, router.call_has_device
            router.is_accumulating = router.call_has_device = True
            try:
                with self._phases.phase("backward"):
                    result = backward(*args, **kwargs)
            finally:
                router.is_accumulating, router.call_has_device = outer
            self._claim_gradients()
            return result

        return watched

    def _claim_gradients(self) -> None:
        for reference, name in list(self._names.values()):
            parameter = reference()
            if parameter is not None and parameter.grad is not None:
                self._claim(parameter.grad, Category.GRADIENTS, f"{name}.grad")

    def _optimizer_begins(self, optimizer: Any, *_: Any) -> None:
        self.know_optimizer(optimizer)
        self._claim_gradients()
        self._phases.begin("optimizer")

    def _optimizer_ends(self, optimizer: Any, *_: Any) -> None:
        self._claim_states(optimizer)
        self._phases.end()
        if self._first_optimizer is not None and self._first_optimizer() is optimizer:
            self._phases.optimizer_step()

    def _claim_states(self, optimizer: Any) -> None:
        for parameter, state in optimizer.state.items():
            owner = self._name_of(parameter) or "a parameter"
            for key, value in state.items():
                self._claim(value, Category.OPTIMIZER_STATE, f"{key} of {owner}")

    def _watched_resize(self, resize: Callable[..., Any]) -> Callable[..., Any]:
        def watched(storage: Any, *args: Any) -> Any:
            result = resize(storage, *args)
            self._storages.resized(storage)
            return result

        return watched

    def _watch_generation(self) -> None:
        """Make ``generate`` of transformers a phase, once that has been imported."""
        module = sys.modules.get(_GENERATION)
        mixin = getattr(module, "GenerationMixin", None)
        if mixin is None:
            return
        self._watches_generation = True
        self.caches.install(self._patches)
        generate = mixin.generate

        def watched(model: Any, *args: Any, **kwargs: Any) -> Any:
            self.know_model(model)
            with self._phases.phase("generate"):
                return generate(model, *args, **kwargs)

        self._patches.set(mixin, "generate", watched)


class _CacheNotes:
    """Writes what is found of caches into the trace, before its next event."""

    def __init__(self, claim: Callable[[Any, Category, str], None], storages: StorageTable) -> None:
        self._own = claim
        self._device = storages.device

    def claim(self, tensor: Any, label: str) -> None:
        """A tensor is part of a cache."""
        self._own(tensor, Category.KV_CACHE, label)

    def cache_layer(self, cache_id: int, layer: int, shape: LayerShape) -> None:
        """How a layer keeps its tokens from now on."""
        self._device.builder.add_cache_layer(cache_id=cache_id, layer=layer, **shape._asdict())

    def cache_length(self, cache_id: int, n_tokens: int, device: int) -> None:
        """Tokens of each sequence that a cache has taken in."""
        self._device.builder.add_cache_length(cache_id, n_tokens, self._device.clock(), device=device)

    def flush(self) -> None:
        """All is written already."""


def _uncompiled(model: Any = None, **_: Any) -> Any:
    """``torch.compile`` in a dry run: the function itself, run eagerly."""
    return _uncompiled if model is None else model


def _declare_kernels() -> Any:
    """Declare CUDA kernels that a CPU build lacks and would replace by several operations, each with its own memory.

    They are never run: a fake tensor's shape rule is.
    """
    import torch

    library = torch.library.Library("aten", "IMPL")
    for name in ("silu_backward", "mish_backward", "native_channel_shuffle"):
        library.impl(name, lambda *inputs: torch.empty_like(inputs[-1]), "CUDA")
    return library


def _conversion(converted: Callable[[Any, str, Any], None], moving: Callable[[int], None]) -> Callable[..., Any]:
    """``Module._apply`` for a dry run: parameters keep their identity whether they are real or fake.

    PyTorch itself swaps fake parameters, which it refuses while anything else refers to them.
    """

    def apply(module: Any, fn: Callable[[Any], Any], recurse: bool = True) -> Any:
        import torch

        moving(1)
        try:
            if recurse:
                for child in module.children():
                    child._apply(fn)
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    with torch.no_grad():
                        _become(parameter, fn(parameter))
                        if parameter.grad is not None:
                            _become(parameter.grad, fn(parameter.grad))
                    converted(module, name, parameter)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = fn(buffer)
                    converted(module, name, module._buffers[name])
        finally:
            moving(-1)
        return module

    return apply


def _become(tensor: Any, applied: Any) -> None:
    """Give a tensor another one's memory, device and type."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    if applied is tensor:
        return
    if isinstance(tensor, FakeTensor) and isinstance(applied, FakeTensor):
        tensor.data = applied
        tensor.fake_device = applied.fake_device
    elif isinstance(applied, FakeTensor):
        _swap(tensor, torch.nn.Parameter(applied, requires_grad=tensor.requires_grad))
    else:
        tensor.data = applied


def _swap(real: Any, fake: Any) -> None:
    """Make a real tensor's object the fake one, so that whoever holds it (an optimizer, a tied layer) holds the fake.

    ``torch.utils.swap_tensors`` does this, but refuses tensors that are weakly referenced, to which no harm is done.
    """
    import torch

    fake_class, fake_state, real_state = type(fake), dict(vars(fake)), dict(vars(real))
    real.__class__ = fake_class
    vars(real).clear()
    vars(real).update(real_state | fake_state)
    try:
        torch._C._swap_tensor_impl(real, fake)
    except RuntimeError as error:
        raise CaptureError(
            "a dry run cannot move a model to the device after it ran on the host: move it before its first use"
        ) from error
