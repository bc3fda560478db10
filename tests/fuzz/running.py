"""A verb run in a forked copy of this process: how it ended, what it said, and how far its memory grew."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, NoReturn

LIMIT_S = 60
MIB = 1 << 20
FREE_GROWTH_BYTES = 300 * MIB
GROWTH_PER_FILE_BYTE = 40
_EXIT_CODES = (0, 1, 3)


class Ran(NamedTuple):
    """How a verb ended.

    Attributes
    ----------
    code
        The exit code; negative for a signal, that of ``SIGALRM`` where it ran past the limit.
    growth_bytes
        How far the peak of resident memory grew.
    """

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    growth_bytes: int
    seconds: float


def run(*arguments: object, limit_s: int = LIMIT_S) -> Ran:
    """Run a verb in a fork: nothing that it does, dying included, reaches this process."""
    words = tuple(map(str, arguments))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.monotonic()
        pid = os.fork()
        if not pid:
            _be_memscope(words, out.fileno(), err.fileno(), limit_s)
        before = _resident_bytes()
        _, status, usage = os.wait4(pid, 0)
        for file in (out, err):
            file.seek(0)
        return Ran(
            words,
            os.waitstatus_to_exitcode(status),
            out.read().decode("utf-8", "replace"),
            err.read().decode("utf-8", "replace"),
            max(usage.ru_maxrss * 1024 - before, 0),
            time.monotonic() - begin,
        )


def _resident_bytes() -> int:
    """What this process has now, which is what its copy begins with."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _be_memscope(arguments: tuple[str, ...], out: int, err: int, limit_s: int) -> NoReturn:
    """The copy's whole life."""
    code = 70
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit_s)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", errors="replace", write_through=True)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", errors="replace", write_through=True)
        sys.argv = ["memscope", *arguments]
        from memscope.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def complaints(ran: Ran, path: Path) -> list[str]:
    """What is wrong with how a verb took an input, a sentence each; empty where nothing is."""
    found = []
    if ran.code not in _EXIT_CODES:
        found.append(f"ended with {ran.code}")
    if "defect in memscope" in ran.err or "Traceback" in ran.err:
        found.append("calls the input a defect of its own")
    if ran.code in _EXIT_CODES and ran.code and ran.err.count("\n") != 1:
        found.append(f"says {ran.err.count(chr(10))} lines")
    if any(not line.isprintable() for line in (ran.out + ran.err).split("\n")):
        found.append("prints control characters")
    if "--json" in ran.arguments:
        found += _json_complaints(ran)
    allowed = FREE_GROWTH_BYTES + GROWTH_PER_FILE_BYTE * size_of(path)
    if ran.growth_bytes > allowed:
        found.append(f"grew by {ran.growth_bytes // MIB} MiB, {allowed // MIB} MiB are allowed")
    return [f"{' '.join(ran.arguments)}: {text}: {ran.err[:300]!r}" for text in found]


def _json_complaints(ran: Ran) -> list[str]:
    if not ran.out:
        return [] if ran.code else ["prints no object"]
    try:
        content = json.loads(ran.out, parse_constant=_refuse)
    except ValueError as error:
        return [f"prints what is no JSON: {error}"]
    return [] if isinstance(content, dict) else ["prints no object"]


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is none of JSON's numbers")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file() and not file.is_symlink())
    return path.stat().st_size
