"""Which limits are asked for: of one trace, or of several in a TOML file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memscope.compare.baseline import Tolerance, parse_tolerance
from memscope.errors import InputFileError, UnknownNameError, UsageError, first_line
from memscope.names import shown
from memscope.units import parse_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_TOLERANCE = "1%"
_KEYS = ("name", "trace", "device", "max_peak", "max_reserved", "baseline", "tolerance", "allow_partial")


@dataclass(frozen=True, slots=True)
class Check:
    """What one trace is held to.

    Attributes
    ----------
    name
        What to call it.
    trace
        The trace's file.
    device
        The device's index; None for each that something was recorded of.
    max_peak_bytes, max_reserved_bytes
        The most that may be allocated, and reserved; None for no such limit.
    baseline
        A baseline, or a trace to make one of; None for none.
    tolerance
        How much more than the baseline's highest run is let through.
    allow_partial
        Whether a recording is judged of which parts may be missing.
    max_peak_given, max_reserved_given
        Both limits as they were written, such as ``400MB``, to be said again; empty where not written as sizes.
    """

    name: str
    trace: Path
    device: int | None = None
    max_peak_bytes: int | None = None
    max_reserved_bytes: int | None = None
    baseline: Path | None = None
    tolerance: Tolerance = field(default_factory=lambda: parse_tolerance(DEFAULT_TOLERANCE))
    allow_partial: bool = False
    max_peak_given: str = field(default="", compare=False)
    max_reserved_given: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.max_peak_bytes is None and self.max_reserved_bytes is None and self.baseline is None:
            raise UsageError(
                f"{self.name}: nothing to check: give a largest peak (24GB), largest reserved, or a baseline"
            )


def read_checks(path: str | Path) -> tuple[Check, ...]:
    """Read a TOML file with a table ``[[check]]`` for each trace; files in it are named from its own folder.

    Raises
    ------
    InputFileError
        If it cannot be read, or says what no check has.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputFileError(path, f"not a readable TOML file: {first_line(error)}") from error
    tables = content.get("check")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputFileError(path, "has no checks: write a table [[check]] for each trace")
    others = sorted(set(content) - {"check"})
    if others:
        raise InputFileError(path, f"has {others[0]!r} beside its checks: write tables [[check]] only")
    try:
        checks = tuple(_check(table, path.parent) for table in tables)
    except UsageError as error:
        raise InputFileError(path, str(error)) from error
    names = [check.name for check in checks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputFileError(path, f"has two checks called {twice!r}: give each a name of its own")
    return checks


def _check(table: Mapping[str, Any], folder: Path) -> Check:
    for key in table:
        if key not in _KEYS:
            raise UnknownNameError(f"a check has no {key!r}", key, _KEYS)
    trace = _typed(table, "trace", str)
    if trace is None:
        raise UsageError('a check names no trace: write trace = "run.memscope"')
    baseline, device = _typed(table, "baseline", str), _typed(table, "device", int)
    name = _typed(table, "name", str) or Path(trace).name
    return Check(
        name=shown(name),
        trace=folder / trace,
        device=device,
        max_peak_bytes=_size(table, "max_peak"),
        max_reserved_bytes=_size(table, "max_reserved"),
        baseline=None if baseline is None else folder / baseline,
        tolerance=parse_tolerance(_typed(table, "tolerance", str) or DEFAULT_TOLERANCE),
        allow_partial=bool(_typed(table, "allow_partial", bool)),
        max_peak_given=_given(table, "max_peak"),
        max_reserved_given=_given(table, "max_reserved"),
    )


def _typed(table: Mapping[str, Any], key: str, kind: type) -> Any:
    value = table.get(key)
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise UsageError(f"{key} = {str(value)[:40]!r} is no {'text' if kind is str else kind.__name__}")
    return value


def _size(table: Mapping[str, Any], key: str) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return parse_bytes(_typed(table, key, str))


def _given(table: Mapping[str, Any], key: str) -> str:
    """A size as it is written; a plain number is none."""
    value = table.get(key)
    return value.strip() if isinstance(value, str) else ""
