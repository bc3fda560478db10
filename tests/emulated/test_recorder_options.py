"""What ``record`` is asked for, and what the environment asks of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from memscope.attribution.driver_usage import driver_usage_at
from memscope.emulation.launch import EmulatedMachine
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.container import read_container
from memscope.trace.marks import step_spans
from memscope.trace.open import open_trace
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.emulated.conftest import ADAPTED, PROGRAMS, environment_of, run_memscope, run_python

pytestmark = pytest.mark.emulated
_CONTEXT_BYTES = 300 << 20


def _recorded(
    tmp_path: Path, *, n_devices: int = 1, variables: dict[str, str] | None = None, **options: object
) -> Path:
    machine = EmulatedMachine("NVIDIA L4", 24 << 30, _CONTEXT_BYTES, (8, 9), 58, n_devices=n_devices)
    path = tmp_path / "run.memscope"
    program, environment = PROGRAMS / "recorder_options.py", {**environment_of(machine), **(variables or {})}
    ended = run_python("-c", ADAPTED, program, path, json.dumps(options), environment=environment)
    assert ended.code == 0, ended.err
    return path


def _module_names(trace: Trace) -> str:
    return " ".join(trace.strings[i] for i in np.unique(trace.stacks.filename_id))


def test_the_device_is_sampled_and_its_context_told_apart(tmp_path: Path) -> None:
    trace = open_trace(_recorded(tmp_path))
    samples = trace.samples
    assert len(samples) >= 2, "at the beginning and at the end"
    assert (np.diff(samples.time_ns) >= 0).all()
    lifetimes = DeviceLifetimes(trace, 0)
    assert lifetimes.usage.reserved_bytes is not None
    beyond = samples.process_used_bytes[-1] - lifetimes.usage.reserved_bytes[-1]
    assert beyond == _CONTEXT_BYTES
    count, why = driver_usage_at(lifetimes, lifetimes.last_event)
    assert count is not None, why
    assert {row.name: row.bytes for row in count.rows}["cuda_context"] == _CONTEXT_BYTES
    assert count.total_bytes == samples.device_used_bytes[samples.time_ns == count.time_ns].tolist()[0]


def test_the_device_is_not_sampled_where_that_is_not_wanted(tmp_path: Path) -> None:
    trace = open_trace(_recorded(tmp_path, nvml=False))
    assert len(trace.samples) == 0
    assert trace.n_events > 0


def test_one_device_is_recorded_as_if_it_were_alone(tmp_path: Path) -> None:
    both, one = (open_trace(_recorded(tmp_path, n_devices=2, **options)) for options in ({}, {"device": 1}))
    assert both.devices == (0, 1)
    assert one.devices == (1,)
    assert one.metadata.n_events_lost == 0
    assert list(one.metadata.device_names) == [1]
    of_one = both.device == 1
    assert one.action.tolist() == both.action[of_one].tolist()
    assert one.size_bytes.tolist() == both.size_bytes[of_one].tolist()
    assert set(one.samples.device.tolist()) == {1}


def test_stacks_are_of_python_or_of_everything_or_none(tmp_path: Path) -> None:
    python, everything, none = (open_trace(_recorded(tmp_path, stacks=stacks)) for stacks in ("python", "all", None))
    assert "recorder_options.py" in _module_names(python)
    assert "CUDACachingAllocator" not in _module_names(python)
    assert len(everything.stacks.frame_ids) > 3 * len(python.stacks.frame_ids)
    assert none.n_events == python.n_events
    assert len(none.stacks.frame_ids) == 0


def test_a_snapshot_is_the_beginning_of_the_recording(tmp_path: Path) -> None:
    path = _recorded(tmp_path)
    now, whole = read_container(path.with_name(path.name + ".now")), open_trace(path)
    assert 0 < now.n_events < whole.n_events
    assert whole.action[: now.n_events].tolist() == now.action.tolist()
    assert whole.metadata.n_events_lost == now.metadata.n_events_lost == 0
    assert len(step_spans(now)) == 1


def test_a_small_bound_of_host_memory_loses_nothing(tmp_path: Path) -> None:
    trace = open_trace(_recorded(tmp_path, max_host_bytes=1 << 20))
    assert trace.metadata.max_entries == 512
    assert trace.metadata.n_events_lost == 0


def test_ranks_record_into_files_of_their_own_where_they_are_asked_to(tmp_path: Path) -> None:
    program, evidence = PROGRAMS / "caught_oom.py", tmp_path / "evidence.pickle"
    for rank in range(3):
        variables = {
            "RANK": str(rank),
            "WORLD_SIZE": "3",
            "MEMSCOPE_OUT": str(tmp_path),
            "MEMSCOPE_RANKS": "0,2",
        }
        ended = run_memscope("run", "--emulate", program, evidence, environment=variables)
        assert ended.code == 0, ended.err
    traces = {path.name: open_trace(path) for path in tmp_path.glob("caught_oom-rank*.memscope")}
    assert sorted(traces) == ["caught_oom-rank0.memscope", "caught_oom-rank2.memscope"]
    assert [traces[name].metadata.rank for name in sorted(traces)] == [0, 2]
    kept = sorted(path.name.split("-pid")[0] for path in tmp_path.glob("*-oom-*"))
    assert kept == ["caught_oom-oom-rank0", "caught_oom-oom-rank2"]
    first = open_trace(next(tmp_path.glob("caught_oom-oom-rank2-*")))
    assert first.action[-1] == Action.OOM


def test_signals_start_and_end_recordings_of_a_program_that_goes_on(tmp_path: Path) -> None:
    program = tmp_path / "server.py"
    program.write_text(
        "import time, torch\n"
        "kept = torch.zeros(1 << 20, device='cuda')\n"
        "print('ready', flush=True)\n"
        "end = time.monotonic() + 60\n"
        "import os\n"
        "while not os.path.exists('enough') and time.monotonic() < end:\n"
        "    more = torch.zeros(1 << 18, device='cuda')\n"
        "    time.sleep(0.01)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "memscope", "run", "--emulate", "server.py"],
        cwd=tmp_path,
        env={**os.environ, "MEMSCOPE_TRIGGER": "signal"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in (1, 2):
        file = tmp_path / f"server-{number}.memscope"
        process.send_signal(signal.SIGUSR2)
        _wait_for(lambda file=file: file.with_name(file.name + ".part").exists())
        time.sleep(0.3)
        process.send_signal(signal.SIGUSR2)
        _wait_for(file.exists)
    (tmp_path / "enough").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "kill -USR2" in said
    for number in (1, 2):
        trace = open_trace(tmp_path / f"server-{number}.memscope")
        assert trace.n_events > 0
        assert trace.metadata.n_events_lost == 0


def _wait_for(happened: object) -> None:
    deadline = time.monotonic() + 60
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (
            {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
            "the allocator is cudaMallocAsync, which keeps no history",
        ),
        ({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}, "PYTORCH_NO_CUDA_MEMORY_CACHING switches the caching allocator off"),
    ],
)
def test_where_there_is_no_history_the_reason_is_said_beforehand(
    tmp_path: Path, variables: dict[str, str], reason: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import torch\ntorch.zeros(1, device='cuda')\n")
    ended = run_memscope("run", "--emulate", program, environment={**variables, "MEMSCOPE_OUT": str(tmp_path)})
    assert ended.code == 1
    assert f"memscope: nothing can be recorded here: {reason}: " in ended.err
    assert len(ended.err.strip().splitlines()) <= 2, ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]
