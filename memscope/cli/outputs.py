"""What every verb makes sure of before it begins: that its output is none of its inputs, and could be written."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from memscope.errors import UsageError

_OUTPUT, _FORCE = "output", "force"


def checking_output(command: click.Command) -> click.Command:
    """The command, its ``--output`` looked at before anything is read; as it is where there is none, or a folder."""
    if command.callback is None or not any(_is_file(parameter) for parameter in command.params):
        return command
    run = command.callback

    @functools.wraps(run)
    def checked(*args: Any, **options: Any) -> Any:
        output = options.get(_OUTPUT)
        if output is not None:
            inputs = [value for name, value in options.items() if name != _OUTPUT]
            check_output(Path(output), inputs, overwrite=bool(options.get(_FORCE, True)))
        return run(*args, **options)

    found = copy.copy(command)
    found.callback = checked
    return found


def _is_file(parameter: click.Parameter) -> bool:
    """Whether it names the file to write; a folder is made by the verb that takes one."""
    is_folder = isinstance(parameter.type, click.Path) and not parameter.type.file_okay
    return parameter.name == _OUTPUT and not is_folder


def check_output(output: Path, inputs: Any, *, overwrite: bool) -> None:
    """Refuse an output before the work that it is of. A folder is left to the verb, which knows the name in it.

    Raises
    ------
    UsageError
        If it is one of the inputs, exists and may not be overwritten, or is no file; if it stands for stdout.
    InputFileError
        If it could not be written.
    """
    from memscope.files import require_place, require_room

    if str(output) == "-":
        raise UsageError("-: nothing is written to stdout here: name a file")
    if output.is_dir():
        return
    refuse_input(output, inputs)
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent} is not a folder: make it first")
    require_place(output, overwrite=overwrite)
    require_room(output)


def refuse_input(output: Path, inputs: Any) -> None:
    """Refuse to write to what is read.

    Raises
    ------
    UsageError
        If one of the paths and texts among the inputs, however they are nested, is the output.
    """
    for path in _paths(inputs):
        if _is_same(path, output):
            raise UsageError(f"{output} is what is read: choose another name for what is written")


def _paths(values: Any) -> Iterator[Path]:
    if isinstance(values, list | tuple):
        for value in values:
            yield from _paths(value)
    elif isinstance(values, str | Path) and str(values):
        yield Path(values)
        if "#" in str(values):  # one of several snapshots in a file
            yield Path(str(values).partition("#")[0])


def _is_same(path: Path, output: Path) -> bool:
    try:
        return path.samefile(output)
    except (OSError, ValueError):
        return False
