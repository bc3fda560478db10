"""The folder that a recording on a GPU is drained into, from its making to its end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from memscope.errors import CaptureError, UsageError
from memscope.trace.unfinished import is_being_made, is_unfinished, part_of


class RecordingFolder:
    """``FILE.part`` beside the file to come, or a temporary folder where there is none.

    Parameters
    ----------
    target
        The file that the recording becomes.
    overwrite
        Whether a recording of that name that was cut off may be replaced.

    Raises
    ------
    CaptureError
        If another process is recording to that name.
    UsageError
        If a recording of that name was cut off, and may not be replaced.
    """

    def __init__(self, target: Path | None, *, overwrite: bool) -> None:
        self._final = None if target is None else part_of(target.absolute())
        if self._final is None:
            self.path = Path(tempfile.mkdtemp(prefix="memscope-"))
            return
        if is_unfinished(self._final):
            if is_being_made(self._final):
                raise CaptureError(f"{self._final} is being recorded by another process: choose another name")
            if not overwrite:
                raise UsageError(
                    f"{self._final} is a recording that was cut off: keep it with memscope import {self._final}, "
                    "or choose another name, or pass overwrite=True"
                )
        self.path = self._final.with_name(f"{self._final.name}.{os.getpid()}")
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self.path.mkdir()
        except OSError as error:
            raise UsageError(f"{self._final.parent} cannot be recorded to: {error.strerror or error}") from error

    def appear(self) -> Path:
        """Give the folder its name, once it can be opened, and return where it is."""
        if self._final is not None:
            if self._final.exists():
                shutil.rmtree(self._final)
            self.path = self.path.rename(self._final)
        return self.path

    def remove(self) -> None:
        """Remove it: the file is there. It stops being a recording's folder at once."""
        if self._final is not None and self.path == self._final:
            self.path = self.path.rename(self.path.with_name(f"{self.path.name}.{os.getpid()}"))
        shutil.rmtree(self.path, ignore_errors=True)
