"""What this machine can record, and what is in the way: every check asks the real thing."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util

from memscope.capture.cuda.allocator import find_obstacle
from memscope.capture.environment import allocator_settings
from memscope.units import format_bytes
from memscope.version import __version__


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: ``status`` is ok, info, warning or missing; ``advice`` says what to do, if anything."""

    name: str
    status: str
    finding: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and what follows: which ways of recording work here."""

    checks: tuple[Check, ...]
    can_read_traces: bool
    can_dry_run: bool
    can_record_cuda: bool


def diagnose() -> Diagnosis:
    """Look at this machine and this Python. Imports torch if it is installed; takes a few seconds then."""
    checks = [_python()]
    torch_check, has_torch, has_cuda = _torch()
    checks += [torch_check, *_cuda(has_torch, has_cuda), _allocator_conf(), _transformers(), _dash(), _nvml()]
    checks.append(_browser())
    return Diagnosis(tuple(checks), True, has_torch, has_cuda and find_obstacle() is None)


def _python() -> Check:
    return Check("memscope", "ok", f"{__version__}, Python {platform.python_version()} on {sys.platform}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> tuple[Check, bool, bool]:
    """Whether torch is there, and whether it can reach a CUDA device."""
    if util.find_spec("torch") is None:
        advice = "reading traces works without it; to record: pip install 'torch-memscope[torch]'"
        return Check("torch", "missing", "not installed", advice), False, False
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch", "warning", f"installed, but cannot be imported: {error}"), False, False
    built = torch.version.cuda
    if built is None:
        finding = f"{torch.__version__}, a build without CUDA"
        return Check("torch", "info", finding, "dry runs work; recording on a GPU needs a CUDA build"), True, False
    if not torch.cuda.is_available():
        finding = f"{torch.__version__} for CUDA {built}, but no usable device"
        return (
            Check(
                "torch",
                "info",
                finding,
                "dry runs and the emulated device work; nvidia-smi says if the driver is loaded",
            ),
            True,
            False,
        )
    return Check("torch", "ok", f"{torch.__version__} for CUDA {built}"), True, True


def _cuda(has_torch: bool, has_cuda: bool) -> list[Check]:
    if not (has_torch and has_cuda):
        return []
    import torch

    checks = []
    for device in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(device)
        finding = f"{properties.name}, {format_bytes(properties.total_memory)}"
        checks.append(Check(f"device {device}", "ok", finding))
    obstacle = find_obstacle()
    if obstacle is None:
        checks.append(Check("allocator", "ok", "PyTorch's native one, which keeps a history"))
    else:
        checks.append(Check("allocator", "warning", obstacle.finding, obstacle.advice))
    return checks


def _allocator_conf() -> Check:
    found = allocator_settings()
    if not found:
        return Check("allocator settings", "ok", "default")
    text = ", ".join(f"{name}={value}" for name, value in found.items())
    advice = "both are set: which one wins depends on the torch version; keep one" if len(found) > 1 else ""
    return Check("allocator settings", "warning" if advice else "info", text, advice)


def _transformers() -> Check:
    version = _version("transformers")
    if version is None:
        return Check(
            "transformers", "missing", "not installed", "only the demo needs it: pip install 'torch-memscope[hf]'"
        )
    return Check("transformers", "ok", version)


def _dash() -> Check:
    version = _version("dash")
    if version is None:
        advice = "text answers work without it; for the dashboard and HTML pages: pip install 'torch-memscope[dash]'"
        return Check("dash", "missing", "not installed", advice)
    return Check("dash", "ok", version)


def _nvml() -> Check:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Check("NVML", "info", f"not usable here: {error}", "the device's own count will be 'not measured'")
    try:
        return Check(
            "NVML", "ok", f"{pynvml.nvmlDeviceGetCount()} devices, driver {pynvml.nvmlSystemGetDriverVersion()}"
        )
    finally:
        pynvml.nvmlShutdown()


def _browser() -> Check:
    which: Callable[[str], str | None] = shutil.which
    found = next((path for name in ("chromium", "google-chrome", "firefox") if (path := which(name))), None)
    if found is None:
        return Check("browser", "info", "none found", "memscope dash prints its address; open it from another machine")
    return Check("browser", "ok", found)
