"""Putting the stand-ins in place: the environment that a program must start in, and whether this one did."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from memscope.errors import UsageError

MAX_DEVICES = 16
NOTES = (
    "Recorded on an emulated device, not on a GPU: PyTorch's own allocator made every decision, nothing was computed.",
    "What the program read back was zeros: where it branches on computed values, it did otherwise than on a GPU.",
    "Sizes that NVIDIA's libraries would choose (cuDNN plans, solver workspaces, NCCL buffers) are not those of a GPU.",
)
"""What a trace recorded on it must say, a sentence each."""
RAN_EAGERLY = (
    "What torch.compile was given ran eagerly, with the memory that this takes, because Triton is not installed: where "
    "it is, Inductor's own code makes the requests."
)
WAS_COMPILED = (
    "What torch.compile was given was compiled, and its kernels launched, which did nothing: the first call also has "
    "what Inductor times kernels with, and its times, and the choice by them, are this machine's."
)
_NOTED: dict[str, None] = {}


@dataclass(frozen=True, slots=True)
class EmulatedMachine:
    """The devices of one emulated machine, all alike.

    Attributes
    ----------
    device_name
        What ``torch.cuda.get_device_name()`` says; the word "emulated" is added to it.
    total_bytes
        Memory that each device's driver reports.
    overhead_bytes
        What of it the CUDA context takes.
    capability
        Compute capability, (major, minor).
    n_multiprocessors
        Streaming multiprocessors.
    n_devices
        How many devices.
    event_latency
        After how many more device calls (launches, copies, records) an event is complete; 0 is at once.
    """

    device_name: str
    total_bytes: int
    overhead_bytes: int
    capability: tuple[int, int]
    n_multiprocessors: int
    n_devices: int = 1
    event_latency: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_devices <= MAX_DEVICES:
            raise UsageError(f"{self.n_devices} emulated devices: choose from 1 to {MAX_DEVICES}")
        if self.event_latency < 0:
            raise UsageError(f"an event latency of {self.event_latency}: it cannot be negative")
        if not 0 <= self.overhead_bytes < self.total_bytes:
            raise UsageError(
                f"an overhead of {self.overhead_bytes:,} bytes on a device of {self.total_bytes:,}: nothing is left"
            )

    def variables(self) -> dict[str, str]:
        """The environment variables that tell the stand-ins (``libraries/fakecuda.h`` says what each means)."""
        major, minor = self.capability
        return {
            "FAKE_CUDA_DEVICES": str(self.n_devices),
            "FAKE_CUDA_NAME": f"{self.device_name} (emulated)",
            "FAKE_CUDA_TOTAL_BYTES": str(self.total_bytes),
            "FAKE_CUDA_OVERHEAD_BYTES": str(self.overhead_bytes),
            "FAKE_CUDA_CC": str(10 * major + minor),
            "FAKE_CUDA_SMS": str(self.n_multiprocessors),
            "FAKE_CUDA_EVENTS": f"lag:{self.event_latency}" if self.event_latency else "ready",
        }


def parse_capability(text: str) -> tuple[int, int]:
    """Read a compute capability such as ``9.0``.

    Raises
    ------
    UsageError
        If it is none.
    """
    major, dot, minor = text.strip().partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(minor) == 1 and 5 <= int(major) <= 12):
        raise UsageError(f"{text!r} is no compute capability: give one such as 8.0 or 9.0")
    return int(major), int(minor)


PRELOADED = "preload.txt"
"""The file in a built folder that lists its libraries, one path a line, in the order to load them in."""
LINKED = "linked"
"""The folder in it that has the driver's library under its usual name, against which Triton links what it compiles."""
COMPILED = "compiled"
"""The folder in it where compiled kernels are kept."""
MARKER = "MEMSCOPE_EMULATED"
"""Names the process that was started again in the emulated environment: a program started from it does not count."""


def emulated_environment(machine: EmulatedMachine, folder: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The environment in which PyTorch finds the emulated devices.

    The stand-ins are preloaded by path, because PyTorch's libraries look for NVIDIA's beside themselves first: where
    the real ones are installed too, those already loaded are taken. ``CUDA_VISIBLE_DEVICES`` of ``base`` is left out:
    it speaks of this machine's own devices.

    Parameters
    ----------
    machine
        The devices.
    folder
        Where the stand-ins are, from :func:`~memscope.emulation.build.build_libraries`.
    base
        The environment to begin with.
    """
    environment = {name: value for name, value in base.items() if name != "CUDA_VISIBLE_DEVICES"}
    libraries = (folder / PRELOADED).read_text(encoding="utf-8").split("\n")[:-1]
    before = base.get("LD_PRELOAD")
    environment["LD_PRELOAD"] = ":".join([*libraries, *([before] if before else [])])
    environment["FAKE_CUDA_WARN_READS"] = base.get("FAKE_CUDA_WARN_READS", "1")
    # Inductor and Triton keep which kernel was the fastest: what was timed here is not for a real device's programs.
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder / COMPILED / "inductor")
    environment["TRITON_CACHE_DIR"] = str(folder / COMPILED / "triton")
    environment["TRITON_LIBCUDA_PATH"] = str(folder / LINKED)
    return environment | machine.variables()


@lru_cache(maxsize=1)
def is_emulated() -> bool:
    """Whether the CUDA runtime of this process is the emulated one: the loaded library itself is asked."""
    return hasattr(ctypes.CDLL(None), "fakecuda_is_emulated") if os.name == "posix" else False


def n_values_read_back() -> int:
    """How many copies from the emulated devices to the host this process has made."""
    counters = (ctypes.c_uint64 * 8)()
    ctypes.CDLL(None).fakecuda_counters(counters)
    return int(counters[7])


def note(sentence: str) -> None:
    """Have this process's traces say something besides :data:`NOTES`."""
    _NOTED[sentence] = None


def provenance() -> dict[str, Any]:
    """What a trace's metadata must say of an emulated device: ``extra`` and ``notes``; empty on a real one."""
    if not is_emulated():
        return {}
    capability = int(os.environ.get("FAKE_CUDA_CC", "80"))
    return {
        "extra": {
            "emulated": True,
            "emulated_overhead_bytes": int(os.environ.get("FAKE_CUDA_OVERHEAD_BYTES", "0")),
            "emulated_events": os.environ.get("FAKE_CUDA_EVENTS", "ready"),
            "emulated_capability": list(divmod(capability, 10)),
            "emulated_multiprocessors": int(os.environ.get("FAKE_CUDA_SMS", "108")),
            "emulated_values_read_back": n_values_read_back(),
        },
        "notes": (*NOTES, *_NOTED, *([WAS_COMPILED] if _has_compiled() else [])),
    }


def _has_compiled() -> bool:
    """Whether Inductor has made code in this process."""
    caches = sys.modules.get("torch._inductor.codecache")
    return bool(getattr(getattr(caches, "PyCodeCache", None), "modules", None))
