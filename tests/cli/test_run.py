"""``memscope run``: a script as it is, recorded, on a GPU, dry or on the emulated device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.errors import CaptureError
from memscope.trace.metadata import TraceMetadata
from memscope.trace.open import open_trace
from memscope.trace.recording.folder import part_of, write_recording
from tests.conftest import Outcome


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--emulate", "--devices", 0), "0 emulated devices: choose from 1 to 16"),
        (("--emulate", "--compute-capability", "9"), "'9' is no compute capability"),
        (("--emulate", "--gpu", "1GiB", "--overhead", "2GiB"), "nothing is left"),
        (("--emulate", "--event-latency", -1), "cannot be negative"),
        (("--emulate", "--gpu", "H1000"), "is not a known GPU"),
        (("--emulate", "--dry-run"), "choose one"),
        (("--no-gpu", "--dry-run"), "give it alone"),
        (("--no-gpu", "--emulate"), "give it alone"),
        (("--devices", 2), "--devices is for --emulate"),
        (("--dry-run", "--event-latency", 2), "--event-latency is for --emulate"),
        (("--overhead", "1GiB"), "--overhead is for --emulate"),
        (("--gpu", "T4-16GB"), "--gpu and --conf are for --dry-run and --emulate"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    options: tuple[object, ...],
    words: str,
    memscope: Callable[..., Outcome],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(str(tmp_path))
    outcome = memscope("run", *options, "train.py")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert words in outcome.err


Run = Callable[..., Outcome]


def test_run_says_that_an_earlier_recording_was_cut_off(memscope: Run, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('ran')\n")
    out = tmp_path / "run.memscope"
    folder = part_of(out)
    folder.mkdir()
    write_recording(folder, 2**22 + 1, TraceMetadata(source="cuda"))  # no process has this number
    outcome = memscope("run", "--dry-run", "-o", out, script)
    assert outcome.code == 1
    assert "cut off" in outcome.err
    assert "-f" in outcome.err
    assert outcome.err.count("\n") == 1
    assert "ran" not in outcome.out
    assert folder.is_dir()


def test_without_a_cuda_build_no_gpu_is_a_dry_run_and_says_why(
    memscope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here() -> None:
        raise CaptureError("torch 9.9 is a build without CUDA")

    monkeypatch.setattr("memscope.emulation.torch_build.find_torch_build", none_here)
    script, out = tmp_path / "train.py", tmp_path / "run.memscope"
    script.write_text("import torch\ntorch.empty(1000, device='cuda')\n")
    outcome = memscope("run", "--no-gpu", "-o", out, script)
    assert outcome.code == 0
    assert "a dry run, for there is no emulated device here: torch 9.9 is a build without CUDA" in outcome.err
    assert open_trace(out).metadata.source == "dry-run"


def test_a_torch_that_cannot_be_imported_is_named(
    memscope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ImportError("libfoo.so.9: cannot open shared object file")

    monkeypatch.setattr("memscope.cli.run.importlib.import_module", broken)
    monkeypatch.setenv("MEMSCOPE_EMULATED", str(os.getpid()))
    outcome = memscope("run", "--dry-run", "-o", tmp_path / "run.memscope", tmp_path / "train.py")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "torch cannot be imported here: libfoo.so.9: cannot open shared object file" in outcome.err
