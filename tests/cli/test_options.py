"""What verbs share: JSON of one shape, and fields of errors by the names of their options."""

from __future__ import annotations

import io
import json
import sys

import click
import numpy as np
import pytest

from memscope.cli import options
from memscope.cli.main import LazyGroup
from memscope.errors import FieldError, UnknownNameError


def test_json_begins_with_its_version_and_holds_numpy_numbers_as_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    options.print_json({"peak_bytes": np.int64(512), "share": np.float64(0.5)})
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "peak_bytes": 512, "share": 0.5}
    with pytest.raises(TypeError, match="object is not JSON"):
        options.print_json({"what": object()})


def test_every_field_that_an_error_names_is_an_option_of_some_verb() -> None:
    group = LazyGroup("memscope")
    context = click.Context(group)
    commands = [group.get_command(context, name) for name in group.list_commands(context)]
    known = {flag for command in commands if command for parameter in command.params for flag in parameter.opts}
    assert {flag for flags in options.FLAGS.values() for flag in flags.split(" and ")} <= known


def test_an_error_of_a_field_is_worded_with_the_option() -> None:
    error = FieldError("{swap_bytes} must not be negative", {"swap_bytes": "swap space"})
    assert str(error) == "swap space must not be negative"
    assert error.worded(options.FLAGS) == "--swap-space must not be negative"


def test_an_output_that_has_not_every_sign_gets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    options.console().print("● exact · all")
    sys.stdout.flush()
    assert written.getvalue().decode("cp1252").strip() == "? exact · all"


@pytest.mark.parametrize(
    ("verb", "headings"),
    [
        ("run", ["What is recorded", "Without a GPU", "The emulated device", "Output", "Other"]),
        ("kv", ["The moment", "The model", "Output", "Other"]),
        (
            "serving",
            [
                "The model",
                "The requests",
                "The GPU's memory",
                "How the cache is managed",
                "Steps, and what they cost",
                "Output",
                "Other",
            ],
        ),
    ],
)
def test_the_help_of_a_verb_with_many_options_has_them_under_headings(verb: str, headings: list[str]) -> None:
    group = LazyGroup("memscope")
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    context = click.Context(command, info_name=verb)
    text = command.get_help(context)
    assert [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and line[0].isupper()] == headings
    flags = [parameter.opts[0] for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    listed = text[text.index(f"\n{headings[0]}:") :].splitlines()
    for flag in flags:
        assert sum(line.strip().startswith((f"{flag} ", f"{flag},")) for line in listed) == 1, flag
    (rest,) = listed[listed.index("Other:") + 1 :]
    assert "--help" in rest


def test_a_choice_takes_its_names_only() -> None:
    choice = options.Choice(("bf16", "fp8"))
    assert choice.convert("fp8", None, None) == "fp8"
    with pytest.raises(UnknownNameError, match=r"^there is no 'bf61': did you mean 'bf16'\? Choose one of bf16, fp8$"):
        choice.convert("bf61", None, None)


@pytest.mark.parametrize(
    ("told", "width", "is_whole"),
    [("80", 80, False), ("", 120, True), ("0", 120, True), ("x", 120, True), ("7", 20, False)],
)
def test_a_pipe_is_as_wide_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch, told: str, width: int, is_whole: bool
) -> None:
    monkeypatch.setenv("COLUMNS", told)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    console = options.console()
    assert (console.width, console.soft_wrap) == (width, is_whole)


def test_json_has_no_number_that_is_none_and_nothing_is_written_before_all_is_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options.print_json({"a": [float("nan"), 1.5, (np.float64("inf"), np.int64(3))], "b": {"c": -float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "a": [None, 1.5, [None, 3]], "b": {"c": None}}
    options.print_json({"name": "\x1b[31m\x7f\x9b\u202e\udc80"})
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert json.loads(out)["name"] == "\x1b[31m\x7f\x9b\u202e\udc80"
    with pytest.raises(TypeError):
        options.print_json({"first": 1, "what": object()})
    assert capsys.readouterr().out == ""


def test_what_is_said_is_one_line_whatever_a_name_holds(capsys: pytest.CaptureFixture[str]) -> None:
    options.say("wrote a\x1b[2J\nb\udc80")
    options.say("c\x9b\u202e", err=False)
    captured = capsys.readouterr()
    assert captured.err == "wrote a [2J b \n"
    assert captured.out == "c  \n"
