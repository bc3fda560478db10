"""What a program sees of a dry run's tensors: tensors of the device, neither fake ones nor ones being traced."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

from memscope.capture.dry_run.values import known as known_values
from memscope.capture.patches import Patches

_TRACERS = frozenset({"torch", "functorch", "torchgen", "memscope"})
"""Packages whose own code must find the fake tensors' class as it is."""
_TYPES = {
    "FloatTensor": "float32",
    "DoubleTensor": "float64",
    "HalfTensor": "float16",
    "BFloat16Tensor": "bfloat16",
    "LongTensor": "int64",
    "IntTensor": "int32",
    "ShortTensor": "int16",
    "CharTensor": "int8",
    "ByteTensor": "uint8",
    "BoolTensor": "bool",
}


class DeviceTensors(Protocol):
    """Tells the simulated device's tensors from others."""

    fake_mode: Any

    @property
    def is_tracing(self) -> bool:
        """Whether torch's own Python code runs, which must find torch as it is."""

    def is_device_tensor(self, value: object) -> bool:
        """Whether this is a tensor on the simulated device."""


def patch_appearance(patches: Patches, router: DeviceTensors) -> None:
    """Have tensors of the device look to a program as they would on a GPU."""
    import torch
    from torch._subclasses import fake_tensor

    facade = _facade_of(fake_tensor.FakeTensor, router)
    for module in (fake_tensor, torch._subclasses):
        _disguise(patches, module, "FakeTensor", facade)
    _disguise(patches, torch, "device", _numbered(torch.device), shown_to="torch.distributed")
    patches.set(fake_tensor.FakeTensor, "__repr__", _shown(fake_tensor.FakeTensor.__repr__, router))
    patches.set(fake_tensor.FakeTensor, "__copy__", _copied)
    patches.set(torch.Tensor, "__deepcopy__", _deep_copied(torch.Tensor.__deepcopy__, router))
    typed = {name: _typed(name, getattr(torch, dtype), router) for name, dtype in _TYPES.items()}
    for name, made in typed.items():
        patches.set(torch.cuda, name, made)
    patches.set(torch, "set_default_tensor_type", _default_type(torch.set_default_tensor_type))
    patches.set(torch.Tensor, "type", _type_of(torch.Tensor.type))
    patches.set(torch.Tensor, "new", _new(torch.Tensor.new, router))


def _facade_of(real: type, router: DeviceTensors) -> type:
    """A class in the place of ``FakeTensor`` of which the dry run's tensors are no instances.

    Libraries ask for fake tensors to learn whether they are being traced, and then leave out every decision that
    reads a value.
    """

    class Facade(type(real)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real) and instance.fake_mode is not router.fake_mode  # type: ignore[attr-defined]

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real)

    return Facade("FakeTensor", (real,), {"__module__": real.__module__})


def _disguise(patches: Patches, module: ModuleType, name: str, facade: type, shown_to: str = "nobody") -> None:
    """Let a module's attribute be something else to all but torch itself, of which one package may see it too.

    A property of the module's class, because the module's own code, which reads its globals, must not pay for it.
    """
    real, plain_class = getattr(module, name), type(module)

    def seen(_: ModuleType) -> Any:
        asking = sys._getframe(1).f_globals.get("__name__", "")
        if asking.startswith(shown_to):
            return facade
        return real if asking.partition(".")[0] in _TRACERS or asking.startswith("importlib") else facade

    module.__class__ = type(plain_class.__name__, (plain_class,), {name: property(seen)})
    patches.call_at_end(setattr, module, "__class__", plain_class)


def _numbered(real: Any) -> type:
    """``torch.device`` that takes a number alone, which PyTorch asks the driver about; else it is the class itself."""

    class Numbered(type):
        def __call__(cls, *args: Any, **options: Any) -> Any:
            return real("cuda", args[0]) if len(args) == 1 and type(args[0]) is int else real(*args, **options)

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

        def __eq__(cls, other: object) -> bool:
            return other is cls or other is real

        def __hash__(cls) -> int:
            return hash(real)

    return Numbered("device", (), {"__module__": "torch"})


def _shown(plain: Callable[..., str], router: DeviceTensors) -> Callable[..., str]:
    """``repr`` of a tensor as PyTorch prints it: its values where they are known, else three dots and its size."""

    def shown(tensor: Any, **options: Any) -> str:
        import torch

        if router.is_tracing or tensor.fake_mode is not router.fake_mode:
            return plain(tensor, **options)
        value = known_values.value_of(tensor)
        if value is None:
            text = f"tensor(..., device='{tensor.device}', size={tuple(tensor.shape)}, dtype={tensor.dtype}"
        else:
            with known_values.on_host():
                text = f"{value.clone()!r}".removesuffix(")") + f", device='{tensor.device}'"
        if tensor.grad_fn is not None:
            text += f", grad_fn=<{type(tensor.grad_fn).__name__}>"
        elif tensor.requires_grad:
            text += ", requires_grad=True"
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        return f"Parameter containing:\n{text})" if is_parameter else f"{text})"

    return shown


def _copied(tensor: Any) -> Any:
    """``copy.copy``: another tensor of the same memory, which pickling would not give."""
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _deep_copied(plain: Callable[..., Any], router: DeviceTensors) -> Callable[..., Any]:
    """``copy.deepcopy``: a parameter's copy has its values alone, another tensor's its gradient and attributes, too.

    Tensors of one memory have copies of one memory.
    """

    def deep_copied(tensor: Any, memo: dict[Any, Any]) -> Any:
        import torch

        if router.is_tracing or not router.is_device_tensor(tensor) or not tensor.is_leaf or tensor.is_sparse:
            return plain(tensor, memo)
        if id(tensor) in memo:
            return memo[id(tensor)]
        with torch.no_grad():
            if isinstance(tensor, torch.nn.Parameter):
                copied = torch.nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
            else:
                copied = _of_copied_memory(tensor, memo).requires_grad_(tensor.requires_grad)
                if tensor.grad is not None:
                    copied.grad = copy.deepcopy(tensor.grad, memo)
                for name, value in vars(tensor).items():
                    if name not in vars(copied):
                        setattr(copied, name, copy.deepcopy(value, memo))
        memo[id(tensor)] = copied
        return copied

    return deep_copied


def _of_copied_memory(tensor: Any, memo: dict[Any, Any]) -> Any:
    """A tensor that lies in the copy of a tensor's memory as that lies in its own."""
    storage = tensor.untyped_storage()
    key = "memory", storage._cdata
    if key not in memo:
        is_whole = storage.nbytes() == tensor.numel() * tensor.element_size()
        whole = tensor.detach() if is_whole else _whole(tensor)
        memo[key] = whole.clone()
        tensor.new_empty([])  # what will have the memory begins with its own, as on a GPU
        if is_whole:
            return memo[key]
    return _whole(memo[key]).view(tensor.dtype).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _whole(tensor: Any) -> Any:
    """All of a tensor's memory, one element after the other."""
    n_elements = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.detach().as_strided((n_elements,), (1,), 0)


def _made(dtype: Any, args: tuple[Any, ...]) -> Any:
    """A device tensor of sizes, or of the values of a sequence, as the old constructors make them."""
    import torch

    if len(args) == 1 and not isinstance(args[0], int | torch.Size):
        return torch.as_tensor(args[0], dtype=dtype, device="cuda")
    return torch.empty(*(args or (0,)), dtype=dtype, device="cuda")


def _typed(name: str, of_dtype: Any, router: DeviceTensors) -> type:
    """``torch.cuda.FloatTensor`` and its like: a constructor, and the type of which device tensors are instances."""

    class TensorType(type):
        is_cuda = True
        dtype = of_dtype

        def __call__(cls, *args: Any) -> Any:
            return _made(of_dtype, args)

        def __instancecheck__(cls, instance: Any) -> bool:
            return router.is_device_tensor(instance) and instance.dtype == of_dtype

    return TensorType(name, (), {"__module__": "torch.cuda"})


def _default_type(plain: Callable[[Any], None]) -> Callable[[Any], None]:
    """``torch.set_default_tensor_type`` that takes the types of the device too."""

    def set_default(kind: Any) -> None:
        import torch

        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
        torch.set_default_device("cuda" if name.startswith("torch.cuda.") else None)
        plain(name.replace("torch.cuda.", "torch."))

    return set_default


def _type_of(plain: Callable[..., Any]) -> Callable[..., Any]:
    """``tensor.type()`` and ``tensor.type(torch.cuda.HalfTensor)``."""

    def type_of(tensor: Any, dtype: Any = None, *args: Any, **options: Any) -> Any:
        import torch

        if dtype is None:
            return plain(tensor)
        if isinstance(dtype, torch.dtype):
            return tensor.to(dtype)
        name = dtype if isinstance(dtype, str) else f"{dtype.__module__}.{dtype.__name__}"
        where, _, name = name.rpartition(".")
        if name not in _TYPES:
            return plain(tensor, dtype, *args, **options)
        return tensor.to("cuda" if where == "torch.cuda" else "cpu", getattr(torch, _TYPES[name]))

    return type_of


def _new(plain: Callable[..., Any], router: DeviceTensors) -> Callable[..., Any]:
    import torch

    def new(tensor: Any, *args: Any, **options: Any) -> Any:
        if router.is_tracing or not router.is_device_tensor(tensor):
            return plain(tensor, *args, **options)
        if tensor.is_sparse:
            return torch.sparse_coo_tensor(*args, check_invariants=False)
        return _made(tensor.dtype, args)

    return new
