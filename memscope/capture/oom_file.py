"""The moment at which memory first ran out, kept in a file of its own while the program goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from memscope.capture.oom import add_oom_note, has_note, is_out_of_memory, oom_path
from memscope.trace.container import write_container
from memscope.trace.trace import Trace


class OomFile:
    """Writes what was recorded until memory first ran out, and says in the error where that is.

    Parameters
    ----------
    recording
        The recording's own file, which the other's name is made of; None writes nothing and says nothing.
    rank
        The process's rank among several.
    is_wanted
        Whether the file is written; where not, errors name the recording's own file.
    """

    def __init__(self, recording: Path | None, rank: int | None, *, is_wanted: bool) -> None:
        self._recording = recording
        self._rank = rank
        self._is_wanted = is_wanted
        self._n_ooms = 0
        self.path: Path | None = None
        self.trace: Trace | None = None

    def ran_out(self, device: int, time_ns: int, take: Callable[[], Trace]) -> None:
        """Memory ran out: at the first time, take the trace until now and write it."""
        self._n_ooms += 1
        if not self._is_wanted or self._recording is None or self._n_ooms > 1:
            return
        path = oom_path(self._recording, self._rank, os.getpid(), time_ns)
        trace = take()
        write_container(trace, path)
        self.trace, self.path = trace, path
        sys.stderr.write(f"memscope: out of memory on device {device}: the trace until then is in {path}\n")

    def explain(self, error: BaseException) -> None:
        """Add a line to an out-of-memory error, once: where the trace is.

        The first one's trace is in a file of its own; a later one is in the recording's file.
        """
        if self._recording is None or not is_out_of_memory(error) or has_note(error):
            return
        if self._n_ooms == 1 and self.path is not None and self.trace is not None:
            add_oom_note(error, self.path, why_it_ran_out(self.trace))
        else:
            add_oom_note(error, self._recording)


def why_it_ran_out(trace: Trace) -> str:
    """The verdict on the last out-of-memory moment of a trace in one line; empty where it cannot be drawn up."""
    from memscope.analysis import Analysis
    from memscope.oom.verdict import oom_headline

    try:
        return oom_headline(Analysis(trace).oom(searches=False))
    except Exception as error:  # noqa: BLE001  an error here would replace the program's own
        return f"why cannot be told ({error or type(error).__name__})"
