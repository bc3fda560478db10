"""``memscope run``: a script as it is, recorded, on a GPU, dry or on the emulated device."""

from __future__ import annotations

import os
import subprocess
import sys
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
        (("--world-size", 2), "--world-size and --rank are for --dry-run"),
        (("--dry-run", "--rank", 1), "give both"),
        (("--dry-run", "--world-size", 2, "--rank", 2), "--rank 2 is not one of the 2 ranks"),
        (("--dry-run", "--world-size", 0), "--world-size 0 cannot be used"),
        (("--dry-run", "-m", "torch.distributed.run"), "starts processes, which a dry run does not follow"),
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


PROGRAM = """
import os
import torch
import torch.distributed as dist

dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
layer = torch.nn.Linear(64, 64 * (1 + dist.get_rank()), device="cuda")
model = torch.nn.parallel.DistributedDataParallel(layer)
model(torch.ones(2, 64, device="cuda")).sum().backward()
print("rank", dist.get_rank(), "of", dist.get_world_size())
dist.destroy_process_group()
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of several ranks, each with a larger layer than the one before."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)
    return script


def run_as_a_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memscope", "run", "--dry-run", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_each_rank_runs_in_a_process_of_its_own_and_has_its_file(program: Path, memscope: Run) -> None:
    ended = run_as_a_process("--world-size", 2, "-o", "run.memscope", program)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "rank 0 of 2\nrank 1 of 2\n"
    files = [program.with_name(f"run-rank{rank}.memscope") for rank in range(2)]
    assert all(file.is_file() for file in files)
    assert not program.with_name("run.memscope").exists()
    report = memscope("report", *files)
    assert "rank 1 peaks highest" in report.out
    again = run_as_a_process("--world-size", 2, "-o", "run.memscope", program)
    assert (again.returncode, again.stdout) == (1, "")
    assert "run-rank0.memscope exists already" in again.stderr


def test_one_rank_runs_alone_and_names_what_nccl_would_take(program: Path, memscope: Run) -> None:
    ended = run_as_a_process("--world-size", 8, "--rank", 5, "-o", "run.memscope", program)
    assert ended.stdout == "rank 5 of 8\n", ended.stderr
    assert "NCCL (modelled)" in memscope("report", program.with_name("run-rank5.memscope")).out


@pytest.mark.parametrize("before", [(), ("--gpu", "16GiB")])
def test_what_follows_a_module_is_the_modules(
    before: tuple[str, ...], memscope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trainer.py").write_text(
        "import sys, torch\nkept = torch.zeros(1, device='cuda')\nprint(sys.argv[1:])\n"
    )
    monkeypatch.chdir(tmp_path)
    outcome = memscope("run", "--dry-run", *before, "-m", "trainer", "--gpu", "0", "-o", "out.txt", "-m", "x")
    assert (outcome.code, outcome.out.strip()) == (0, "['--gpu', '0', '-o', 'out.txt', '-m', 'x']")
    assert (tmp_path / "trainer.memscope").exists()
    assert memscope("run", "--dry-run", "-f", "-m", "trainer", "--", "--gpu").out.strip() == "['--gpu']"
