"""torch's own tools in a dry run: profilers, generators, functional transforms, TorchScript, fast paths."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memscope.capture.patches import Patches


def patch_tools(patches: Patches) -> None:
    """Have them work without a device."""
    import torch
    from torch.autograd import profiler

    patches.set(profiler.profile, "__init__", _of_the_host(profiler.profile.__init__))
    patches.set(profiler.emit_nvtx, "__enter__", lambda ranges: ranges)
    patches.set(profiler.emit_nvtx, "__exit__", lambda *_: None)
    patches.set(torch.autograd.graph, "disable_saved_tensors_hooks", _without_ours())
    for name in ("script", "trace"):
        patches.set(torch.jit, name, _unscripted(getattr(torch.jit, name)))
    patches.set(torch, "Generator", _generator_class())
    patches.set(torch, "get_device_module", _device_module(torch.get_device_module))
    _use_slow_path(patches)
    patches.set(torch._VF, "_pad_packed_sequence", _padded)
    for name, made in (("_scatter", _scatter), ("_gather", _gather), ("_broadcast_coalesced", _broadcast)):
        if not hasattr(torch._C, name):
            patches.set(torch._C, name, made)


def _of_the_host(plain: Callable[..., None]) -> Callable[..., None]:
    """A profiler that is asked for the device's side: it has the host's, and no kernels."""

    @functools.wraps(plain)
    def init(profile: Any, *args: Any, **options: Any) -> None:
        if options.pop("use_cuda", False) or options.get("use_device") == "cuda":
            options.update(use_device=None, use_cpu=True)
        plain(profile, *args, **options)

    return init


def _without_ours() -> Callable[[str], Any]:
    """``torch.func`` refuses hooks on saved tensors; the dry run's own is taken off for as long.

    Only where it is the innermost: a program's own hooks are refused as ever.
    """
    import torch

    plain = torch.autograd.graph.disable_saved_tensors_hooks
    autograd = torch._C._autograd

    @contextmanager
    def disabled(message: str) -> Iterator[None]:
        hooks = autograd._top_saved_tensors_default_hooks(True)
        is_ours = hooks is not None and getattr(hooks[0], "__module__", "").startswith("memscope.")
        if is_ours:
            autograd._pop_saved_tensors_default_hooks()
        try:
            with plain(message):
                yield
        finally:
            if is_ours:
                autograd._push_saved_tensors_default_hooks(*hooks)

    return disabled


def _unscripted(plain: Callable[..., Any]) -> Callable[..., Any]:
    """TorchScript of a module: the module itself, as its interpreter knows nothing of the device."""
    import torch

    @functools.wraps(plain)
    def scripted(obj: Any = None, *args: Any, **options: Any) -> Any:
        if isinstance(obj, torch.nn.Module):
            return obj
        if not args[1:]:  # names are looked up among those of the caller, who is one frame further up
            options["_frames_up"] = options.get("_frames_up", 0) + 1
        return plain(obj, *args, **options)

    return scripted


def _generator_class() -> Any:
    """``torch.Generator`` that takes ``cuda``, and says that it is of that device: a generator of the host."""
    import torch

    original = torch.Generator

    class DeviceGenerator(original):  # type: ignore[misc, valid-type]
        device = torch.device("cuda:0")

    class AnyDevice(type):
        def __call__(cls, device: Any = "cpu") -> Any:
            on_device = isinstance(device, int) or torch.device(device).type == "cuda"
            return DeviceGenerator("cpu") if on_device else original(device)

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, original)

    return AnyDevice("Generator", (), {"__module__": "torch", "__doc__": original.__doc__})


def _device_module(plain: Callable[..., Any]) -> Callable[..., Any]:
    def device_module(device: Any = None) -> Any:
        import torch

        return torch.cuda if device is None else plain(device)

    return device_module


def _use_slow_path(patches: Patches) -> None:
    """Transformer layers run as their parts: the fused inference path asks the device's kernels for nested tensors."""
    import torch

    mha = torch.backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    patches.call_at_end(mha.set_fastpath_enabled, before)


def _scatter(tensor: Any, devices: Any, chunk_sizes: Any = None, dim: int = 0, _streams: Any = None) -> list[Any]:
    """What ``DataParallel`` splits a batch with."""
    parts = tensor.split(chunk_sizes, dim) if chunk_sizes else tensor.chunk(len(devices), dim)
    return [part.to(f"cuda:{int(device)}") for part, device in zip(parts, devices, strict=False)]


def _gather(tensors: Any, dim: int, destination: Any = None) -> Any:
    import torch

    return torch.cat([tensor.to("cuda:0" if destination in (None, -1) else "cpu") for tensor in tensors], dim)


def _broadcast(tensors: Any, devices: Any, _buffer_size: int = 0) -> list[list[Any]]:
    return [[tensor if not place else tensor.clone() for tensor in tensors] for place, _ in enumerate(devices)]


def _padded(data: Any, batch_sizes: Any, batch_first: bool, padding: float, total: int = -1) -> tuple[Any, Any]:
    """``pad_packed_sequence`` as PyTorch's C++ does it, which writes the lengths into memory that it takes for real."""
    import torch

    sizes = batch_sizes.tolist()
    n_steps = total if total > 0 else len(sizes)
    padded = data.new_full((n_steps, sizes[0], *data.shape[1:]), padding)
    begin = step = 0
    while step < len(sizes):
        n_rows = sizes[step]
        n_equal = sizes.count(n_rows)
        rows = data[begin : begin + n_equal * n_rows].view(n_equal, n_rows, *data.shape[1:])
        padded[step : step + n_equal, :n_rows].copy_(rows)
        begin, step = begin + n_equal * n_rows, step + n_equal
    lengths = torch.tensor([sum(size > row for size in sizes) for row in range(sizes[0])])
    return padded.transpose(0, 1) if batch_first else padded, lengths
