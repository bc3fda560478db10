"""Writing an output file: never over another one unasked, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from memscope.errors import InputFileError, UsageError


@contextmanager
def whole_file(path: str | Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name when the block ends without an error.

    Raises
    ------
    UsageError
        If the file exists and ``overwrite`` is false.
    InputFileError
        If it cannot be written there.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already: choose another name, or overwrite it with -f")
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise InputFileError(path, f"cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
