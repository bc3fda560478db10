"""The pytest plugin where PyTorch's own allocator serves the tests: on the emulated device."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.emulation.launch import EmulatedMachine
from memscope.trace.container import read_container
from tests.emulated.conftest import Ended, environment_of, run_python

pytestmark = pytest.mark.emulated
ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import pytest
import torch

KEPT = [torch.empty(64 << 20, dtype=torch.uint8, device="cuda")]  # predates every recording

def hold(n_mib):
    return torch.empty(n_mib << 20, dtype=torch.uint8, device="cuda")

@pytest.mark.limit_gpu_memory("8 MiB")
def test_within():
    hold(4)
    hold(4)

@pytest.mark.limit_gpu_memory("8 MiB")
def test_beyond():
    first, second = hold(6), hold(4)

@pytest.mark.limit_gpu_leaks("1 MiB")
def test_leaks():
    KEPT.append(hold(2))

@pytest.mark.gpu_memory_baseline("step")
def test_step(gpu_memory):
    hold(12)
    gpu_memory.step()
"""


def _ran(folder: Path, *options: str) -> Ended:
    (folder / "test_it.py").write_text(TESTS)
    machine = EmulatedMachine("NVIDIA L4", 24 << 30, 300 << 20, (8, 9), 58)
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    plugins = ("-p", "no:memscope", "-p", "memscope.integrations.pytest_plugin", "-p", "no:cacheprovider")
    tests = ("--rootdir", str(folder), str(folder / "test_it.py"))
    return run_python("-m", "pytest", *plugins, *options, *tests, environment={**environment_of(machine), **variables})


def test_tests_are_measured_by_what_they_allocate_whatever_was_there_before(tmp_path: Path) -> None:
    written = _ran(tmp_path, "--memscope-update-baselines", "-k", "test_step")
    assert written.code == 0, written.out + written.err
    assert "wrote step.json: 12.0 MiB" in written.out
    ended = _ran(tmp_path, "--memscope-bin-path", str(tmp_path / "kept"))
    assert "2 failed, 2 passed" in ended.out, ended.out + ended.err
    assert "limit_gpu_memory: the test needs 10.0 MiB of GPU memory, 2.0 MiB over its limit of 8.0 MiB" in ended.out
    assert "limit_gpu_leaks: 2.0 MiB outlive the test at lines that may keep 1.0 MiB each" in ended.out
    assert "(predicted)" not in ended.out
    (path,) = (tmp_path / "kept").glob("*test_step.memscope")
    trace = read_container(path)
    assert trace.metadata.source == "cuda"
    assert trace.metadata.is_emulated
