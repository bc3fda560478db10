"""The emulated device as a program, NVML and a user see it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from memscope.emulation.launch import EmulatedMachine
from memscope.trace.open import open_trace
from tests.emulated.conftest import PROGRAMS, environment_of, run_memscope, run_python

pytestmark = pytest.mark.emulated
_MIB = 1 << 20


def _torch_release() -> tuple[int, int]:
    """Of the installed PyTorch, which is not imported: it would look for its libraries."""
    major, minor = version("torch").split(".")[:2]
    return int(major), int(minor)


def _seen(
    program: str, tmp_path: Path, *options: object, arguments: tuple[str, ...] = (), **environment: str
) -> dict[str, Any]:
    command = ("run", "--emulate", *options, "-o", tmp_path / "x.memscope", PROGRAMS / f"{program}.py", *arguments)
    ended = run_memscope(*command, environment=environment)
    assert ended.code == 0, ended.err
    assert "reads values back" not in ended.err
    seen: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
    return seen


def test_the_device_is_the_one_that_was_named(tmp_path: Path) -> None:
    seen = _seen("describe", tmp_path, "--gpu", "L4-24GB", "--devices", 3, CUDA_VISIBLE_DEVICES="7")
    total = 22_700 * _MIB
    assert seen == {
        "arguments": [],
        "n_devices": 3,
        "name": "NVIDIA L4 (emulated)",
        "capability": [8, 9],
        "total": total,
        "total_of_properties": total,
        "free": total - 512 * _MIB,
        "n_multiprocessors": 58,
    }


def test_size_overhead_and_capability_can_be_given(tmp_path: Path) -> None:
    options = ("--gpu", "3GiB", "--overhead", "1GiB", "--compute-capability", "9.0")
    seen = _seen("describe", tmp_path, *options)
    assert (seen["total"], seen["free"], seen["capability"]) == (3072 * _MIB, 2048 * _MIB, [9, 0])


def test_without_a_gpu_the_truer_way_is_chosen_and_said(tmp_path: Path) -> None:
    script, out = tmp_path / "train.py", tmp_path / "x.memscope"
    script.write_text("import torch\nprint(torch.empty(1000, device='cuda').device)\n")
    ended = run_memscope("run", "--no-gpu", "-o", out, script)
    assert (ended.code, ended.out) == (0, "cuda:0\n")
    assert "memscope: on the emulated device, under torch 2." in ended.err
    assert open_trace(out).metadata.is_emulated


def test_a_dry_run_needs_none_of_nvidias_libraries_either(tmp_path: Path) -> None:
    script, out = tmp_path / "train.py", tmp_path / "x.memscope"
    script.write_text("import torch\ntorch.empty(1000, device='cuda')\n")
    ended = run_memscope("run", "--dry-run", "-o", out, script)
    assert ended.code == 0, ended.err
    metadata = open_trace(out).metadata
    assert (metadata.source, metadata.is_emulated) == ("dry-run", False)


def test_backward_passes_have_workspaces_of_their_own_both_ways(tmp_path: Path) -> None:
    left = _seen("workspaces", tmp_path)
    ended = run_memscope("run", "--dry-run", "-o", tmp_path / "dry.memscope", PROGRAMS / "workspaces.py")
    assert json.loads(ended.out.splitlines()[-1]) == left
    if _torch_release() < (2, 14):
        assert left["a backward pass"] - left["a backward pass without"] > 8_519_680
        assert left["another"] == left["a backward pass"]


def test_a_program_can_hide_devices_from_itself() -> None:
    program = (
        "import os; os.environ['CUDA_VISIBLE_DEVICES'] = '2,1'\n"
        "import torch\n"
        "print(torch.cuda.device_count(), *(str(torch.cuda.get_device_properties(i).uuid)[:2] for i in (0, 1)))\n"
        "kept = torch.empty(1 << 20, device='cuda:1')\n"
        "import pynvml\n"
        "pynvml.nvmlInit()\n"
        "devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(4)]\n"
        "print(*(pynvml.nvmlDeviceGetMemoryInfo(device).used >> 20 for device in devices))\n"
    )
    machine = EmulatedMachine("a device", 1 << 30, 100 << 20, (8, 0), 108, n_devices=4)
    ended = run_python("-c", program, environment=environment_of(machine))
    assert ended.code == 0, ended.err
    # Devices 2 and 1 by their numbers in the machine; the second of them has a context of 100 MiB and one segment.
    assert ended.out == "2 22 11\n0 120 0 0\n"


def test_nvml_counts_the_bytes_that_cuda_does(tmp_path: Path) -> None:
    other, reserved = 300 * _MIB, 77 * _MIB
    shared = {"FAKE_CUDA_OTHER_BYTES": str(other), "FAKE_NVML_RESERVED_BYTES": str(reserved), "FAKE_NVML_MIG": "1"}
    cases = [
        {},
        {**shared, "FAKE_NVML_PROCESSES": "renumbered"},
        {"FAKE_NVML_PROCESSES": "unmeasured"},
        {"FAKE_NVML_PROCESSES": "hidden", "FAKE_NVML_MEMORY": "unsupported"},
        {"FAKE_NVML_PROCESSES": "unsupported", "FAKE_NVML_INIT": "9"},
    ]
    options = ("--gpu", "4GiB", "--overhead", "256MiB", "--devices", 2)
    seen = _seen("nvml", tmp_path, *options, arguments=(json.dumps(cases),))
    identity, (plain, renumbered, unmeasured, hidden, unsupported) = seen["identity"], seen["counts"]
    assert (identity["n_devices"], identity["index_by_uuid"], identity["index_by_bus"]) == (2, 0, 0)
    assert identity["uuid"] == identity["uuid_of_cuda"]
    assert identity["name"] == "a device of 4GiB (emulated)"
    assert "emulated" in identity["driver"]

    total, own = 4096 * _MIB, plain["reserved"] + 256 * _MIB
    assert plain["reserved"] == 100 * _MIB
    assert plain["cuda"] == [total - own, total]
    assert plain["memory"] == plain["memory_v2"] == [total, total - own, own]
    assert plain["processes"] == [["self", own]]
    assert (plain["mig"], plain["init"]) == ("NVMLError_NotSupported", None)

    assert renumbered["cuda"] == [total - own - other, total]
    assert renumbered["memory"] == [total + reserved, total - own - other, own + other + reserved]
    assert renumbered["memory_v2"] == [total + reserved, total - own - other, own + other]
    assert renumbered["processes"][0] == [100_000, own]
    assert renumbered["processes"][1][1] == other
    assert renumbered["mig"] == [1, 1]

    assert unmeasured["processes"] == [["self", None]]
    assert hidden["memory"] == hidden["processes"] == "NVMLError_NotSupported"
    assert unsupported["processes"] == "NVMLError_NotSupported"
    assert unsupported["init"] == "NVMLError_DriverNotLoaded"


def test_the_stand_ins_win_over_installed_libraries(tmp_path: Path) -> None:
    """A runtime library where torch looks first, as NVIDIA's packages have it, is not the one that is loaded."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    installed, copy = Path(spec.origin).parent, tmp_path / "site" / "torch"
    (copy / "lib").mkdir(parents=True)
    for entry in [*installed.iterdir(), *(installed / "lib").iterdir()]:
        if entry != installed / "lib":
            (copy / entry.relative_to(installed)).symlink_to(entry)
    decoy = tmp_path / "decoy.c"
    decoy.write_text(
        "#include <stdlib.h>\n#include <stdio.h>\n__attribute__((constructor)) void f(void) { abort(); }\n"
    )
    for runtime in _folders_of_runtime(installed, copy):
        runtime.parent.mkdir(parents=True, exist_ok=True)
        soname = f"-Wl,-soname,{runtime.name}"
        subprocess.run(["cc", "-shared", "-fPIC", decoy, soname, "-o", runtime], check=True)
    site = f"{copy.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    plain = subprocess.run(
        [sys.executable, "-c", "import torch"], env={**os.environ, "PYTHONPATH": site}, capture_output=True, check=False
    )
    assert plain.returncode == -6, "the decoy is not where torch looks"
    _seen("describe", tmp_path, PYTHONPATH=site)


def _folders_of_runtime(installed: Path, copy: Path) -> list[Path]:
    """Where torch's libraries would look for the CUDA runtime: beside the folder of torch."""
    version = re.search(r"^cuda\b.*'(\d+)\.", (installed / "version.py").read_text(), re.MULTILINE)
    assert version is not None
    soname = f"libcudart.so.{version[1]}"
    return [copy.parent / "nvidia" / folder / "lib" / soname for folder in (f"cu{version[1]}", "cuda_runtime")]
