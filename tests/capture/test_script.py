from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.errors import InputFileError
from memscope.trace.container import read_container
from tests.conftest import Outcome

pytest.importorskip("torch")
Run = Callable[..., Outcome]


USES_THE_DEVICE = "import torch\nkept = torch.zeros(1, device='cuda')\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_script_runs_as_python_would_run_it(memscope: Run, folder: Path) -> None:
    (folder / "beside.py").write_text("value = 41\n")
    (folder / "train.py").write_text(
        "import sys, beside, torch\n"
        "if __name__ == '__main__':\n"
        "    kept = torch.zeros(beside.value + 1, device='cuda')\n"
        "    print(sys.argv[1:], __file__, sys.modules['__main__'].kept is kept)\n"
    )
    before = sys.argv, sys.path[:], sys.modules["__main__"]
    outcome = memscope("run", "--dry-run", "--gpu", "L4-24GB", "train.py", "--lr", "3", "-f")
    assert (outcome.code, outcome.out) == (0, "['--lr', '3', '-f'] train.py True\n")
    assert "wrote train.memscope (2 events, dry-run)" in outcome.err
    trace = read_container(folder / "train.memscope")
    assert trace.size_bytes.tolist() == [2 << 20, 168]
    assert [frame.filename for frame in trace.stack(int(trace.stack_id[1]))] == ["train.py"]
    assert trace.metadata.device_names == {0: "NVIDIA L4"}
    assert before[1:] == (sys.path, sys.modules["__main__"])


def test_an_existing_file_is_refused_before_the_script_runs(memscope: Run, folder: Path) -> None:
    (folder / "train.py").write_text(f"{USES_THE_DEVICE}open('ran', 'w').close()\n")
    (folder / "train.memscope").write_text("kept")
    outcome = memscope("run", "--dry-run", "train.py")
    assert outcome.code == 1
    assert "overwrite it with -f" in outcome.err
    assert not (folder / "ran").exists()
    assert memscope("run", "--dry-run", "-f", "train.py").code == 0
    assert (folder / "ran").exists()


@pytest.mark.parametrize(
    ("ending", "code", "err"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('no data')", 1, "no data\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_however_a_script_ends_its_trace_is_kept(memscope: Run, folder: Path, ending: str, code: int, err: str) -> None:
    (folder / "train.py").write_text(f"import torch\nkept = torch.zeros(5, device='cuda')\n{ending}\n")
    outcome = memscope("run", "--dry-run", "-o", "out.memscope", "train.py")
    assert outcome.code == code
    assert err in outcome.err
    assert read_container(folder / "out.memscope").n_events == 2


def test_a_traceback_shows_the_script_and_not_memscope(memscope: Run, folder: Path) -> None:
    (folder / "train.py").write_text(
        "import torch\nmodel = torch.nn.Linear(1 << 14, 1 << 15).cuda()\nmodel(torch.zeros(4, 1 << 14).cuda())\n"
    )
    outcome = memscope("run", "--dry-run", "--gpu", "2.5GiB", "train.py")
    assert outcome.code == 1
    assert 'File "train.py", line 2' in outcome.err
    assert "OutOfMemoryError: CUDA out of memory" in outcome.err
    assert "memscope/capture" not in outcome.err
    assert "1 out of memory" in outcome.err


def test_a_module_is_run_by_name(memscope: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "work.py").write_text(
        "import torch, sys\nkept = torch.zeros(5, device='cuda')\nprint(__name__, __package__, sys.argv[1:])\n"
    )
    outcome = memscope("run", "--dry-run", "-m", "package.work", "--flag")
    assert (outcome.code, outcome.out) == (0, "__main__ package ['--flag']\n")
    assert read_container(folder / "package.work.memscope").n_events == 2
    sys.modules.pop("package", None)


def test_what_cannot_be_run_is_said(memscope: Run, folder: Path) -> None:
    (folder / "broken.py").write_text("def\n")
    for arguments, said in (
        (["--dry-run"], "nothing to run"),
        (["--dry-run", "absent.py"], "absent.py: cannot be read"),
        (["--dry-run", "broken.py"], "not a Python script"),
        (["--dry-run", "-m", "no.such.module"], "no module named no.such.module"),
        (["--dry-run", "-o", "nowhere/out.memscope", "broken.py"], "nowhere is not a folder"),
        (["--gpu", "L4-24GB", "broken.py"], "--dry-run"),
        (["--dry-run", "--gpu", "GTX9999", "broken.py"], "not a known GPU"),
    ):
        outcome = memscope("run", *arguments)
        assert outcome.code == 1
        assert said in outcome.err
    assert [path.name for path in folder.iterdir() if path.suffix == ".memscope"] == []


def test_each_rank_has_its_own_file(memscope: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    (folder / "train.py").write_text(USES_THE_DEVICE)
    assert memscope("run", "--dry-run", "train.py").code == 0
    assert (folder / "train-rank3.memscope").is_file()


@pytest.mark.parametrize(("ending", "code"), [("os.kill(os.getpid(), signal.SIGTERM)", 143), ("os._exit(3)", 3)])
def test_a_dry_run_that_is_told_to_end_keeps_its_trace(tmp_path: Path, ending: str, code: int) -> None:
    script, trace = tmp_path / "script.py", tmp_path / "run.memscope"
    script.write_text(
        f"import os, signal, time, torch\nkept = torch.ones(1000, device='cuda')\n{ending}\ntime.sleep(30)\n"
    )
    command = [sys.executable, "-m", "memscope", "run", "--dry-run", "-o", str(trace), str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == code
    assert read_container(trace).n_events == 2


def test_a_program_that_handles_the_signal_itself_does_so(tmp_path: Path) -> None:
    script, trace = tmp_path / "script.py", tmp_path / "run.memscope"
    script.write_text(
        "import os, signal, torch\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('handled'))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "kept = torch.ones(1000, device='cuda')\n"
    )
    command = [sys.executable, "-m", "memscope", "run", "--dry-run", "-o", str(trace), str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "handled\n")


def test_a_trace_of_nothing_is_no_success_and_says_why(memscope: Run, folder: Path) -> None:
    (folder / "cpu.py").write_text("import torch\nx = torch.zeros(3)\nprint('done')\n")
    outcome = memscope("run", "--dry-run", "--gpu", "L4-24GB", "cpu.py")
    assert (outcome.code, outcome.out) == (1, "done\n")
    assert "wrote cpu.memscope (0 events, dry-run)" in outcome.err
    assert "nothing was recorded: the program asked for no memory of a CUDA device" in outcome.err
    assert read_container(folder / "cpu.memscope").n_events == 0
    (folder / "ends.py").write_text("raise SystemExit(7)\n")
    assert memscope("run", "--dry-run", "--gpu", "L4-24GB", "ends.py").code == 7


def test_a_place_that_cannot_be_written_is_said_before_the_script_runs(memscope: Run, folder: Path) -> None:
    (folder / "train.py").write_text("print('ran')\n")
    (folder / "sub").mkdir()
    for output in ("sub", "/dev/null", "none/out.memscope"):
        outcome = memscope("run", "--dry-run", "-f", "-o", output, "train.py")
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(("ending", "code"), [("raise ValueError('its own')", 1), ("", 1), ("raise SystemExit(3)", 1)])
def test_a_disk_that_fills_up_does_not_hide_how_the_script_ended(
    memscope: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, ending: str, code: int
) -> None:
    def fail(_trace: object, path: Path, **_: object) -> Path:
        raise InputFileError(path, "cannot be written: No space left on device")

    monkeypatch.setattr("memscope.capture.recorder.write_container", fail)
    (folder / "train.py").write_text(f"import torch\nkept = torch.zeros(3, device='cuda')\n{ending}\n")
    outcome = memscope("run", "--dry-run", "--gpu", "L4-24GB", "train.py")
    assert outcome.code == code
    assert outcome.err.count("No space left on device") == 1
    assert outcome.err.splitlines()[-1].endswith("No space left on device")
    assert ("ValueError: its own" in outcome.err) == ("its own" in ending)
