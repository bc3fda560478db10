"""``memscope run``: a script as it is, recorded, on a GPU, dry or on the emulated device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.metadata import TraceMetadata
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
        (("--dry-run", "--devices", 2), "--devices is for --emulate"),
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


@pytest.mark.parametrize("before", [(), ("--gpu", "16GiB")])
def test_what_follows_a_module_is_the_modules(
    before: tuple[str, ...], memscope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trainer.py").write_text("import sys\nprint(sys.argv[1:])\n")
    monkeypatch.chdir(tmp_path)
    outcome = memscope("run", "--dry-run", *before, "-m", "trainer", "--gpu", "0", "-o", "out.txt", "-m", "x")
    assert (outcome.code, outcome.out.strip()) == (0, "['--gpu', '0', '-o', 'out.txt', '-m', 'x']")
    assert (tmp_path / "trainer.memscope").exists()
    assert memscope("run", "--dry-run", "-f", "-m", "trainer", "--", "--gpu").out.strip() == "['--gpu']"
