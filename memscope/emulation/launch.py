"""Putting the stand-ins in place: the environment that a program must start in, and whether this one did."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from memscope.emulation.device import NOTES, EmulatedMachine

PRELOADED = "preload.txt"
"""The file in a built folder that lists its libraries, one path a line, in the order to load them in."""
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
        "notes": NOTES,
    }
