"""An output is looked at before the work: it is none of the inputs, may be written, and there is room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from memscope.cli.main import VERBS, LazyGroup
from memscope.cli.outputs import checking_output, refuse_input
from memscope.errors import UsageError
from tests.conftest import Outcome

Run = Callable[..., Outcome]


@pytest.mark.parametrize(
    "arguments",
    [("report",), ("replay", "--strategy", "lower-bound"), ("kv",), ("import",)],
    ids=lambda arguments: arguments[0],
)
def test_no_verb_writes_over_what_it_reads(
    memscope: Run, trace_file: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    content = trace_file.read_bytes()
    linked = tmp_path / "linked.memscope"
    linked.symlink_to(trace_file)
    os.link(trace_file, tmp_path / "same.memscope")
    for output in (trace_file, linked, tmp_path / "same.memscope", tmp_path / "." / trace_file.name):
        outcome = memscope(*arguments, trace_file, "-f", "-o", output)
        assert outcome.code == 1
        assert "is what is read: choose another name" in outcome.err
        assert outcome.err.count("\n") == 1
    assert trace_file.read_bytes() == content


def test_a_script_is_not_recorded_over_itself(memscope: Run, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit(7)")
    outcome = memscope("run", "--dry-run", "-f", "-o", script, script)
    assert outcome.code == 1
    assert "is what is read" in outcome.err
    assert script.read_text() == "raise SystemExit(7)"


def test_an_import_into_the_folder_of_its_input_is_not_its_input(memscope: Run, trace_file: Path) -> None:
    content = trace_file.read_bytes()
    outcome = memscope("import", trace_file, "-f", "-o", trace_file.parent)
    assert outcome.code == 1
    assert "is what is read" in outcome.err
    assert trace_file.read_bytes() == content


def test_inputs_that_would_become_one_file_are_not_lost(memscope: Run, trace_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "other").mkdir()
    other = shutil.copy(trace_file, tmp_path / "other" / trace_file.name)
    outcome = memscope("import", trace_file, other, "-f", "-o", out)
    assert outcome.code == 1
    assert "several of the inputs would become" in outcome.err
    assert list(out.iterdir()) == []


def test_one_of_several_snapshots_in_a_file_is_that_file(tmp_path: Path) -> None:
    file = tmp_path / "ranks.pickle"
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="is what is read"):
        refuse_input(file, [None, 3, [f"{file}#1"]])
    refuse_input(tmp_path / "other", [file, f"{file}#1", "a\0b", ""])


def test_an_output_that_cannot_be_written_is_said_before_anything_is_read(memscope: Run, tmp_path: Path) -> None:
    for output, why in (
        (tmp_path / "no" / "page.html", f"{tmp_path / 'no'} is not a folder"),
        (Path(os.devnull), "is a device"),
    ):
        outcome = memscope("report", tmp_path / "none.memscope", "-f", "-o", output)
        assert outcome.code == 1
        assert why in outcome.err
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert "exists already" in memscope("report", tmp_path / "none.memscope", "-o", page).err
    assert page.read_text() == "mine"


def test_every_verb_with_an_output_has_it_looked_at() -> None:
    group = LazyGroup("memscope")
    context = click.Context(group)
    for verb in VERBS:
        command = group.get_command(context, verb)
        assert command is not None
        outputs = [parameter.type for parameter in command.params if parameter.name == "output"]
        if outputs:
            # The demo makes its folder: there is nothing that it could write over.
            is_folder = isinstance(outputs[0], click.Path) and not outputs[0].file_okay
            assert command.callback is not None
            is_looked_at = Path(command.callback.__code__.co_filename).name == "outputs.py"
            assert is_looked_at is not is_folder, verb
            assert is_folder == (verb == "demo")
    bare = click.Command("bare", callback=lambda: None)
    assert checking_output(bare) is bare


@pytest.mark.parametrize("arguments", [("export", "--format", "folded"), ("redact",), ("report",), ("import",)])
def test_stdout_is_no_file_to_write(
    memscope: Run, trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = memscope(*arguments, trace_file, "-o", "-")
    assert (outcome.code, outcome.out) == (1, "")
    assert "nothing is written to stdout here: name a file" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "-").exists()
