"""What a program's calls of torch mean while a dry run is on: moves between host and device, and kernel choices."""

from __future__ import annotations

import copyreg
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from memscope.capture.dry_run import _kernel_choices as kernel_choices
from memscope.capture.dry_run._kernel_choices import Autocast
from memscope.capture.dry_run._operations import MAX_REAL_NUMBERS, OperationRouter, fixed_answer, is_dense
from memscope.capture.dry_run._storages import StorageTable
from memscope.capture.dry_run._streams import Streams
from memscope.capture.dry_run.kernels.recurrent import NETWORKS
from memscope.capture.dry_run.surface.products import PRODUCTS
from memscope.capture.dry_run.values import known as known_values
from memscope.capture.patches import Patches
from memscope.errors import CaptureError


class Redirector:
    """Replaces those functions of torch that would reach for a driver; every replacement is undone at the end."""

    def __init__(
        self,
        router: OperationRouter,
        autocast: Autocast,
        on_input: Callable[[Any], None],
        *,
        storages: StorageTable,
        streams: Streams,
    ) -> None:
        import torch
        from torch._subclasses.fake_tensor import FakeTensor

        self._router = router
        self._autocast = autocast
        self._on_input = on_input
        self._storages = storages
        self._streams = streams
        self._fake_type = FakeTensor
        self._plain_types = frozenset([torch.Tensor, torch.nn.Parameter, FakeTensor, torch.nn.Buffer])
        self._plain_to = torch.Tensor.to
        self._plain_format = torch.Tensor.__format__
        self._plain_numpy = torch.Tensor.numpy
        self._plain_tolist = torch.Tensor.tolist

    def install(self, patches: Patches) -> None:
        """Put the replacements in place."""
        import torch
        from torch.utils import _device

        _device._device_constructors()  # torch keeps its answer for good: it must not see what is patched below
        tensor, router = torch.Tensor, self._router
        plain_get_device = tensor.get_device
        is_device = router.is_device_tensor
        replacements: dict[str, Callable[..., Any]] = {
            "to": self._to,
            "cuda": self._cuda,
            "cpu": self._cpu,
            "numpy": self._numpy,
            "__format__": self._format,
            "tolist": self._tolist,
            "get_device": lambda t: t.fake_device.index if is_device(t) else plain_get_device(t),
            "record_stream": self._record_stream,
        }
        for name, replacement in replacements.items():
            patches.set(tensor, name, self._method(getattr(tensor, name), replacement))
        plain_is_cuda, plain_is_cpu = vars(torch._C.TensorBase)["is_cuda"], vars(torch._C.TensorBase)["is_cpu"]
        patches.set(
            tensor,
            "is_cuda",
            property(lambda t: is_device(t) if self._is_replaced_for(t) else plain_is_cuda.__get__(t)),
        )
        patches.set(
            tensor,
            "is_cpu",
            property(lambda t: plain_is_cpu.__get__(t) and not (self._is_replaced_for(t) and is_device(t))),
        )
        patches.set(tensor, "data", self._data(vars(torch._C.TensorBase)["data"]))
        patches.set(torch._C._nn, "_parse_to", _numbered(torch._C._nn._parse_to))
        patches.set(torch, "clear_autocast_cache", self._autocast.clear)
        self._choose_kernels(patches)

    def _data(self, plain: Any) -> property:
        """``Tensor.data``: a tensor that is given one of the device is there, as after a move of its module."""

        def give(tensor: Any, value: Any) -> None:
            if type(value) is not self._fake_type or not self._is_replaced_for(tensor):
                plain.__set__(tensor, value)
            elif isinstance(tensor, self._fake_type):
                plain.__set__(tensor, value)
                tensor.fake_device = value.fake_device
            else:
                _become(tensor, value)

        return property(plain.__get__, give, plain.__delete__)

    def _choose_kernels(self, patches: Patches) -> None:
        """Take the decisions that PyTorch's C++ takes by the device, as CUDA's would be taken."""
        import torch

        attend = self._choice(torch.nn.functional.scaled_dot_product_attention, kernel_choices.sdpa)
        patches.set(torch.nn.functional, "scaled_dot_product_attention", attend)
        patches.set(torch._C._nn, "scaled_dot_product_attention", attend)
        apply = self._choice(torch.nn.functional.linear, kernel_choices.linear)
        patches.set(torch.nn.functional, "linear", apply)
        patches.set(torch._C._nn, "linear", apply)
        drop = self._choice(torch.dropout, kernel_choices.dropout)
        patches.set(torch, "dropout", drop)
        patches.set(torch._VF, "dropout", drop)
        entropy = self._choice(torch.nn.functional.cross_entropy, kernel_choices.cross_entropy, casts=False)
        patches.set(torch.nn.functional, "cross_entropy", entropy)
        for name, on_device in NETWORKS.items():
            chosen = self._choice(getattr(torch, name), on_device)
            patches.set(torch, name, chosen)
            patches.set(torch._VF, name, chosen)
        for name, on_device in PRODUCTS.items():
            for owner in (torch, torch.Tensor):
                patches.set(owner, name, self._choice(getattr(owner, name), on_device))
        patches.set(torch, "rms_norm", self._choice(torch.rms_norm, kernel_choices.rms_norm))

    def _choice(
        self, plain: Callable[..., Any], on_device: Callable[..., Any], *, casts: bool = True
    ) -> Callable[..., Any]:
        """A function that runs the second where the tensor is on the device and the second has an answer.

        ``casts``: whether the arguments are first cast as autocast casts those of the function as a whole.
        """

        def chosen(*args: Any, **kwargs: Any) -> Any:
            if not self._router.is_tracing and args and self._router.is_device_tensor(args[0]):
                if casts:
                    args, kwargs = self._autocast.arguments(plain, args, kwargs)
                result = on_device(*args, **kwargs)
                if result is not None:
                    return result
            return plain(*args, **kwargs)

        return chosen

    def _method(self, plain: Callable[..., Any], replacement: Callable[..., Any]) -> Callable[..., Any]:
        """A method of tensors that is replaced for the program, not for what runs inside an operation."""

        def method(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            return (replacement if self._is_replaced_for(tensor) else plain)(tensor, *args, **kwargs)

        return method

    def _is_replaced_for(self, tensor: Any) -> bool:
        """Whether the program asks, and not of a tensor that wraps others: those say themselves what is done inside."""
        return not self._router.is_tracing and type(tensor) in self._plain_types

    def _to(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        copy = kwargs.pop("copy", False)
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, torch.Tensor):
            device, dtype, memory_format = other.device, other.dtype, None
        else:
            args = tuple(_indexed(arg) for arg in args)
            kwargs = {name: _indexed(value) for name, value in kwargs.items()}
            device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        options = {"dtype": dtype, "memory_format": memory_format}
        options = {name: value for name, value in options.items() if value is not None}
        return self._move(tensor, device, options, copy=copy)

    def _move(self, tensor: Any, device: Any, options: dict[str, Any], *, copy: bool = False) -> Any:
        """``tensor.to(device, …)`` with the sides told apart."""
        if self._router.is_elsewhere:
            with self._router.visited():
                return self._move(tensor, device, options, copy=copy)
        is_here = self._router.is_device_tensor(tensor)
        goes_there = is_here if device is None else device.type == "cuda"
        if device is not None and device.type not in ("cpu", "cuda"):
            return self._plain_to(tensor, device, **options)
        target = self._storages.devices.of(device.index) if goes_there and device is not None else None
        if is_here and target is not None and target.index != tensor.fake_device.index:
            return self._across(tensor, target.index, options)
        if is_here == goes_there and (device is None or tensor.device.type != "meta"):
            if not options and not copy:
                return tensor
            return self._plain_to(tensor, copy=copy, **options)
        if target is not None:
            moved = self._to_device(tensor, options, target.index)
            if not isinstance(tensor, self._fake_type) and known_values.is_worth_knowing(tensor):
                known_values.remember(
                    moved, self._plain_to(tensor.detach(), **options).clone() if options else tensor.detach().clone()
                )
            self._on_input(moved)
            return moved
        return self._to_host(tensor, options)

    def _across(self, tensor: Any, index: int, options: dict[str, Any]) -> Any:
        """A copy on another device, whose gradient is copied back."""
        import torch

        moved = _between_devices().apply(tensor, index)
        known = known_values.value_of(tensor)
        if known is not None:
            known_values.remember(moved, known)
        return torch.ops.aten._to_copy(moved, **options) if options else moved

    def _format(self, tensor: Any, form: str) -> str:
        """``f"{loss:.3f}"``: tensors of other classes than its own PyTorch does not format."""
        if tensor.dim() or not isinstance(tensor, self._fake_type):
            return str(self._plain_format(tensor, form))
        return format(tensor.item(), form)

    def _to_device(self, tensor: Any, options: dict[str, Any], index: int) -> Any:
        """A copy on the device. Of a real tensor only the shape is read, so that nothing refers to it afterwards."""
        import torch

        device = torch.device("cuda", index)
        is_differentiable = torch.is_grad_enabled() and tensor.requires_grad
        if isinstance(tensor, self._fake_type) or is_differentiable or options.get("memory_format") is not None:
            return torch.ops.aten._to_copy(tensor, device=device, **options)
        dtype = options.get("dtype", tensor.dtype)
        if is_dense(tensor):
            return torch.ops.aten.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=device)
        return torch.ops.aten.empty(tensor.shape, dtype=dtype, device=device)

    def _to_host(self, tensor: Any, options: dict[str, Any]) -> Any:
        """A copy on the host: real where its values are known or it is small, else fake."""
        import torch

        outer, self._router.is_leaving_device = self._router.is_leaving_device, True
        try:
            if (torch.is_grad_enabled() and tensor.requires_grad) or tensor.numel() > MAX_REAL_NUMBERS:
                return torch.ops.aten._to_copy(tensor, device=torch.device("cpu"), **options)
            values = self._values(tensor)  # autograd's hooks copy within operations of the device
            return self._plain_to(values, **options) if options else values
        finally:
            self._router.is_leaving_device = outer

    def _values(self, tensor: Any) -> Any:
        """A real host tensor in place of a fake one."""
        import torch

        known = known_values.value_of(tensor)
        if known is not None:
            return known.clone()
        answer = self._router.made_up(fixed_answer(tensor.dtype))
        return torch.full(tuple(tensor.shape), answer, dtype=tensor.dtype, device="cpu")

    def _cuda(self, tensor: Any, device: Any = None, *_: Any, **__: Any) -> Any:
        import torch

        if isinstance(device, int):
            device = torch.device("cuda", device)
        return self._move(tensor, torch.device("cuda") if device is None else torch.device(device), {})

    def _cpu(self, tensor: Any, **options: Any) -> Any:
        import torch

        return self._move(tensor, torch.device("cpu"), options)

    def _record_stream(self, tensor: Any, stream: Any) -> None:
        self._storages.use_on_stream(tensor, stream)

    def _numpy(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(tensor, self._fake_type):
            return self._plain_numpy(tensor, *args, **kwargs)
        if self._router.is_device_tensor(tensor):
            raise TypeError(
                f"can't convert {tensor.device} device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        return self._plain_numpy(self._values(tensor))

    def _tolist(self, tensor: Any) -> Any:
        return self._plain_tolist(self._values(tensor) if isinstance(tensor, self._fake_type) else tensor)


@lru_cache(maxsize=1)
def _between_devices() -> Any:
    """The copy from one device to another, as autograd has it."""
    import torch

    class Copied(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: Any, index: int) -> Any:
            ctx.index = tensor.fake_device.index
            return torch.ops.aten._to_copy(tensor, device=torch.device("cuda", index))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return torch.ops.aten._to_copy(grads[0], device=torch.device("cuda", ctx.index)), None

    return Copied


def _numbered(parse: Callable[..., Any]) -> Callable[..., Any]:
    """What ``Module.to`` takes its arguments apart with: a build without CUDA knows no device of a number alone."""

    def parse_to(*args: Any, **kwargs: Any) -> Any:
        return parse(*map(_indexed, args), **{name: _indexed(value) for name, value in kwargs.items()})

    return parse_to


def _indexed(value: Any) -> Any:
    """``cuda`` and ``0`` with an index: C++ would ask the driver which device is current, or which kind there is."""
    import torch

    if type(value) is int:
        return torch.device("cuda", value)
    if isinstance(value, str) and value.startswith("cuda"):
        value = torch.device(value)
    if isinstance(value, torch.device) and value.type == "cuda" and value.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return value


class CallContext:
    """Tells the router, for each call of a torch function from Python, whether it was given a device tensor.

    C++ code that makes a new tensor "like" another one asks for the device of its options, which it believes to be the
    host's; whether the host was really meant can be told from the call that led there.
    """

    def __init__(self, router: OperationRouter, autocast: Autocast) -> None:
        import torch

        self._router = router
        self._autocast = autocast
        self._tensor_type = torch.Tensor
        self._healthy = {
            function: answer
            for name, answer in (("isfinite", True), ("isnan", False), ("isinf", False))
            for function in (getattr(torch, name), getattr(torch.Tensor, name))
        }
        """What a healthy run's values are, which programs ask of their losses and gradients."""
        self._comparisons = {
            function: answer
            for answer, functions in (
                (True, (torch.eq, torch.Tensor.eq, torch.Tensor.__eq__)),
                (False, (torch.ne, torch.Tensor.ne, torch.Tensor.__ne__)),
            )
            for function in functions
        }

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call of a torch function."""
        router = self._router
        outer = router.call_has_device
        router.call_has_device = self._touches_device(args)
        try:
            if kwargs.get("device") is not None:
                kwargs["device"] = _indexed(kwargs["device"])
            args, kwargs = self._autocast.arguments(func, args, kwargs)
            result = func(*args, **kwargs)
        finally:
            router.call_has_device = outer
        if func in self._healthy and args and router.is_device_tensor(result):
            known_values.believe(result, self._healthy[func])
        elif func in self._comparisons and len(args) > 1 and router.is_device_tensor(result):
            self._compared(args[0], args[1], result, is_equal=self._comparisons[func])
        return result

    def _compared(self, tensor: Any, other: Any, result: Any, *, is_equal: bool) -> None:
        """A healthy run's values are equal to themselves, and to no infinity."""
        if other is tensor:
            known_values.believe(result, is_equal)
        elif isinstance(other, float) and not math.isfinite(other) and tensor.is_floating_point():
            known_values.believe(result, not is_equal)

    def _touches_device(self, args: tuple[Any, ...]) -> bool:
        is_device = self._router.is_device_tensor
        for value in args[:4]:
            if is_device(value) or (isinstance(value, tuple | list) and value and is_device(value[0])):
                return not any(map(self._answers_itself, args))
        return False

    def _answers_itself(self, value: object) -> bool:
        """Whether a value that is no tensor takes the call over: its code says itself what lies where."""
        return not isinstance(value, self._tensor_type) and hasattr(value, "__torch_function__")


def conversion(converted: Callable[[Any, str, Any], None], moving: Callable[[int], None]) -> Callable[..., Any]:
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
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if applied is tensor:
        return
    if isinstance(tensor, FakeTensor) and not isinstance(applied, FakeTensor):
        applied = tensor.fake_mode.from_tensor(applied)  # small ones are real on the host
    if isinstance(tensor, FakeTensor) and isinstance(applied, FakeTensor):
        tensor.data = applied
        tensor.fake_device = applied.fake_device
    elif isinstance(applied, FakeTensor) or is_traceable_wrapper_subclass(applied):
        given: Any = applied
        _swap(tensor, torch.nn.Parameter(given, requires_grad=tensor.requires_grad))
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
    for name in copyreg._slotnames(fake_class):  # type: ignore[attr-defined]
        if hasattr(fake, name):
            setattr(real, name, getattr(fake, name))
    try:
        torch._C._swap_tensor_impl(real, fake)
    except RuntimeError as error:
        raise CaptureError(
            "a dry run cannot move a model to the device after it ran on the host: move it before its first use"
        ) from error
