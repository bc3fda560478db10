"""The environment of a program on emulated devices, and what its recording says."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.emulation import launch
from memscope.emulation.launch import NOTES, PRELOADED, EmulatedMachine, emulated_environment, parse_capability
from memscope.errors import UsageError


def test_a_machine_becomes_variables() -> None:
    machine = EmulatedMachine("NVIDIA L4", 22_700 << 20, 512 << 20, (8, 9), 58, n_devices=2, event_latency=30)
    assert machine.variables() == {
        "FAKE_CUDA_DEVICES": "2",
        "FAKE_CUDA_NAME": "NVIDIA L4 (emulated)",
        "FAKE_CUDA_TOTAL_BYTES": "23802675200",
        "FAKE_CUDA_OVERHEAD_BYTES": "536870912",
        "FAKE_CUDA_CC": "89",
        "FAKE_CUDA_SMS": "58",
        "FAKE_CUDA_EVENTS": "lag:30",
    }


@pytest.mark.parametrize(("text", "capability"), [("8.0", (8, 0)), (" 12.0 ", (12, 0)), ("8.9", (8, 9))])
def test_capabilities_are_read(text: str, capability: tuple[int, int]) -> None:
    assert parse_capability(text) == capability


@pytest.mark.parametrize("text", ["", "8", "8.", ".9", "8.10", "four.two", "-8.0", "99.0"])
def test_what_is_no_capability_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no compute capability"):
        parse_capability(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_devices": 0}, "0 emulated devices: choose from 1 to 16"),
        ({"n_devices": 17}, "17 emulated devices: choose from 1 to 16"),
        ({"event_latency": -1}, "an event latency of -1: it cannot be negative"),
        ({"overhead_bytes": 2000}, "an overhead of 2,000 bytes on a device of 1,000: nothing is left"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EmulatedMachine(
            **{"device_name": "x", "total_bytes": 1000, "overhead_bytes": 0, "capability": (8, 0)}  # type: ignore[arg-type]
            | {"n_multiprocessors": 1}
            | options
        )


L4 = EmulatedMachine("NVIDIA L4", 22_700 << 20, 512 << 20, (8, 9), 58)


def test_the_stand_ins_are_preloaded_in_order_and_before_what_was(tmp_path: Path) -> None:
    (tmp_path / PRELOADED).write_text("/cache/cudart.so\n/cache/cuda.so\n")
    base = {"LD_PRELOAD": "/lib/jemalloc.so", "CUDA_VISIBLE_DEVICES": "3", "HOME": "/root"}
    environment = emulated_environment(L4, tmp_path, base)
    assert environment["LD_PRELOAD"] == "/cache/cudart.so:/cache/cuda.so:/lib/jemalloc.so"
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert environment["HOME"] == "/root"
    assert environment.items() >= L4.variables().items()


def test_kernels_compiled_for_it_are_kept_apart_from_a_real_devices(tmp_path: Path) -> None:
    (tmp_path / PRELOADED).write_text("/cache/cudart.so\n")
    environment = emulated_environment(L4, tmp_path, {"TRITON_CACHE_DIR": "/home/kernels"})
    kept = {environment["TRITON_CACHE_DIR"], environment["TORCHINDUCTOR_CACHE_DIR"]}
    assert len(kept) == 2
    assert all(Path(folder).is_relative_to(tmp_path) for folder in kept)


def test_what_is_noted_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_NOTED", {})
    monkeypatch.setattr(launch, "is_emulated", lambda: True)
    monkeypatch.setattr(launch, "n_values_read_back", lambda: 0)
    launch.note("Something else.")
    launch.note("Something else.")
    assert launch.provenance()["notes"] == (*NOTES, "Something else.")


@pytest.mark.parametrize(("base", "warns"), [({}, "1"), ({"FAKE_CUDA_WARN_READS": "0"}, "0")])
def test_values_read_back_are_warned_of_unless_switched_off(base: dict[str, str], warns: str, tmp_path: Path) -> None:
    (tmp_path / PRELOADED).write_text("/cache/cudart.so\n")
    environment = emulated_environment(L4, tmp_path, base)
    assert (environment["LD_PRELOAD"], environment["FAKE_CUDA_WARN_READS"]) == ("/cache/cudart.so", warns)


def test_nothing_is_said_of_a_process_that_is_not_emulated() -> None:
    assert launch.provenance() == {}


def test_a_recording_says_what_was_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in L4.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "is_emulated", lambda: True)
    monkeypatch.setattr(launch, "n_values_read_back", lambda: 7)
    assert launch.provenance() == {
        "extra": {
            "emulated": True,
            "emulated_overhead_bytes": 512 << 20,
            "emulated_events": "ready",
            "emulated_capability": [8, 9],
            "emulated_multiprocessors": 58,
            "emulated_values_read_back": 7,
        },
        "notes": NOTES,
    }
