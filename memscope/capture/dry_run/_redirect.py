"""What a program's calls of torch mean while a dry run is on: moves between host and device, and kernel choices."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from memscope.capture.dry_run import _kernel_choices as kernel_choices
from memscope.capture.dry_run import _known_values as known_values
from memscope.capture.dry_run._kernel_choices import Autocast
from memscope.capture.dry_run._operations import MAX_REAL_NUMBERS, OperationRouter, fixed_answer, is_dense
from memscope.capture.dry_run._storages import StorageTable
from memscope.capture.dry_run._streams import Streams
from memscope.capture.dry_run.kernels.recurrent import NETWORKS
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
        plain_get_device, plain_pin = tensor.get_device, tensor.pin_memory
        is_device = router.is_device_tensor
        replacements: dict[str, Callable[..., Any]] = {
            "to": self._to,
            "cuda": self._cuda,
            "cpu": self._cpu,
            "numpy": self._numpy,
            "__format__": self._format,
            "tolist": self._tolist,
            "get_device": lambda t: t.fake_device.index if is_device(t) else plain_get_device(t),
            "pin_memory": lambda t, *_, **__: plain_pin(t) if is_device(t) else t,
            "is_pinned": lambda *_, **__: False,
            "record_stream": self._record_stream,
        }
        for name, replacement in replacements.items():
            patches.set(tensor, name, self._method(getattr(tensor, name), replacement))
        plain_is_cuda, plain_is_cpu = vars(torch._C.TensorBase)["is_cuda"], vars(torch._C.TensorBase)["is_cpu"]
        patches.set(
            tensor, "is_cuda", property(lambda t: plain_is_cuda.__get__(t) if router.is_tracing else is_device(t))
        )
        patches.set(
            tensor, "is_cpu", property(lambda t: plain_is_cpu.__get__(t) and (router.is_tracing or not is_device(t)))
        )
        patches.set(torch, "clear_autocast_cache", self._autocast.clear)
        self._choose_kernels(patches)

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
        router = self._router

        def method(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            return (plain if router.is_tracing else replacement)(tensor, *args, **kwargs)

        return method

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
        is_here = self._router.is_device_tensor(tensor)
        goes_there = is_here if device is None else device.type == "cuda"
        if device is not None and device.type not in ("cpu", "cuda"):
            return self._plain_to(tensor, device, **options)
        target = self._storages.devices.of(device.index) if goes_there and device is not None else None
        if is_here and target is not None and target.index != tensor.fake_device.index:
            return self._across(tensor, target.index, options)
        if is_here == goes_there and tensor.device.type != "meta":
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

        if (torch.is_grad_enabled() and tensor.requires_grad) or tensor.numel() > MAX_REAL_NUMBERS:
            self._router.is_leaving_device = True
            try:
                return torch.ops.aten._to_copy(tensor, device=torch.device("cpu"), **options)
            finally:
                self._router.is_leaving_device = False
        values = self._values(tensor)
        return self._plain_to(values, **options) if options else values

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


def _indexed(value: Any) -> Any:
    """``cuda`` with the current device's index: C++ would ask the driver which that is."""
    import torch

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
        self._healthy = {
            function: answer
            for name, answer in (("isfinite", True), ("isnan", False), ("isinf", False))
            for function in (getattr(torch, name), getattr(torch.Tensor, name))
        }
        """What a healthy run's values are, which programs ask of their losses and gradients."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call of a torch function."""
        router = self._router
        outer = router.call_has_device
        router.call_has_device = self._touches_device(args)
        try:
            args, kwargs = self._autocast.arguments(func, args, kwargs)
            result = func(*args, **kwargs)
        finally:
            router.call_has_device = outer
        if func in self._healthy and args and router.is_device_tensor(result):
            known_values.believe(result, self._healthy[func])
        return result

    def _touches_device(self, args: tuple[Any, ...]) -> bool:
        is_device = self._router.is_device_tensor
        for value in args[:4]:
            if is_device(value) or (isinstance(value, tuple | list) and value and is_device(value[0])):
                return True
        return False


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
