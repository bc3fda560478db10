"""Programs run for real, each in a process of its own: on the emulated device, or on a GPU where one is."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from memscope.emulation.build import build_libraries
from memscope.emulation.launch import EmulatedMachine, emulated_environment
from memscope.emulation.torch_build import find_torch_build
from memscope.trace.open import open_trace

PROGRAMS = Path(__file__).parent / "programs"
_LIMIT_S = 120
ADAPTED = """import runpy, sys
from pathlib import Path
from memscope.emulation.programs import adapt_programs
adapt_programs()
del sys.argv[0]
sys.path[0] = str(Path(sys.argv[0]).parent)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run_memscope(*arguments: object, environment: dict[str, str] | None = None) -> Ended:
    """Run ``memscope`` as from a shell."""
    return run_python("-m", "memscope", *arguments, environment=environment)


def run_python(*arguments: object, environment: dict[str, str] | None = None) -> Ended:
    """Run Python with arguments, and a few variables more than this process has."""
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    return Ended(result.returncode, result.stdout, result.stderr)


def environment_of(machine: EmulatedMachine) -> dict[str, str]:
    """The environment in which a program of this Python finds the emulated devices."""
    return emulated_environment(machine, build_libraries(find_torch_build(), print), os.environ)


@pytest.fixture(
    params=[pytest.param("emulated", marks=pytest.mark.emulated), pytest.param("gpu", marks=pytest.mark.gpu)]
)
def device(request: pytest.FixtureRequest) -> str:
    """Where the programs run; the same tests are made on both."""
    return str(request.param)


class Recorded(NamedTuple):
    """A recorded program: how it ended, the trace's file, and what the program left at its end.

    ``snapshot`` is PyTorch's, of a second run of the same program, which memscope had no part in; None where not asked.
    """

    ended: Ended
    path: Path
    stats: dict[int, dict[str, int]]
    seen: dict[str, Any]
    snapshot: dict[str, Any] | None


@pytest.fixture
def record(device: str, tmp_path: Path) -> Callable[..., Recorded]:
    """Record one of the programs on a device, and run it again without memscope."""

    def run(name: str, *options: object, conf: str = "", is_compared: bool = True) -> Recorded:
        path, evidence, own = tmp_path / "run.memscope", tmp_path / "evidence.pickle", tmp_path / "own.pickle"
        program, variables = PROGRAMS / f"{name}.py", _conf_variables(conf)
        where = ("--emulate", *options) if device == "emulated" else ()
        ended = run_memscope("run", *where, "-o", path, program, evidence, environment=variables)
        assert ended.code == 0, ended.err
        left = pickle.loads(evidence.read_bytes())
        snapshot = None
        if is_compared:
            environment, start = (_same_device(path), ("-c", ADAPTED)) if device == "emulated" else ({}, ())
            alone = run_python(*start, program, own, "own-history", environment={**environment, **variables})
            assert alone.code == 0, alone.err
            snapshot = pickle.loads(own.read_bytes())["snapshot"]
        return Recorded(ended, path, left["stats"], left["seen"], snapshot)

    return run


def _conf_variables(conf: str) -> dict[str, str]:
    return {"PYTORCH_CUDA_ALLOC_CONF": conf} if conf else {}


def _same_device(path: Path) -> dict[str, str]:
    """The environment of the emulated device that a trace was recorded on, as the trace says."""
    metadata = open_trace(path).metadata
    name, latency = metadata.device_names[0], metadata.extra["emulated_events"]
    major, minor = metadata.extra["emulated_capability"]
    machine = EmulatedMachine(
        name.removesuffix(" (emulated)"),
        metadata.device_total_bytes[0],
        metadata.extra["emulated_overhead_bytes"],
        (major, minor),
        metadata.extra["emulated_multiprocessors"],
        n_devices=len(metadata.device_names),
        event_latency=0 if latency == "ready" else int(latency.removeprefix("lag:")),
    )
    return environment_of(machine)
