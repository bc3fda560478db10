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
from memscope.errors import FieldError


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
