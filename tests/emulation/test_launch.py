"""The environment of a program on emulated devices, and what its recording says."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.emulation import launch
from memscope.emulation.device import NOTES, EmulatedMachine
from memscope.emulation.launch import PRELOADED, emulated_environment

L4 = EmulatedMachine("NVIDIA L4", 22_700 << 20, 512 << 20, (8, 9), 58)


def test_the_stand_ins_are_preloaded_in_order_and_before_what_was(tmp_path: Path) -> None:
    (tmp_path / PRELOADED).write_text("/cache/cudart.so\n/cache/cuda.so\n")
    base = {"LD_PRELOAD": "/lib/jemalloc.so", "CUDA_VISIBLE_DEVICES": "3", "HOME": "/root"}
    environment = emulated_environment(L4, tmp_path, base)
    assert environment["LD_PRELOAD"] == "/cache/cudart.so:/cache/cuda.so:/lib/jemalloc.so"
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert environment["HOME"] == "/root"
    assert environment.items() >= L4.variables().items()


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
