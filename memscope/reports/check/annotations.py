"""What a check found as GitHub shows it beside the lines of a change: one workflow command a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from memscope.compare.difference import Row
from memscope.compare.gate import Gate, Unjudged
from memscope.units import format_bytes
from memscope.words.compare import row_name, signed_bytes
from memscope.words.gate import gate_words
from memscope.words.labels import printable, row_label

_N_LINES = 8
_N_NAMED = 3
_SITE = re.compile(r"(.*?):(\d+) (.*)", re.DOTALL)


def github_lines(gate: Gate | Unjudged, folder: PurePath) -> list[str]:
    """An error for what a check found, and one at each line of code that holds most of the excess.

    Parameters
    ----------
    folder
        The checkout: files below it are named from there, as GitHub does; of others the whole name is given.
    """
    title = f"GPU memory: {gate.check.name}"
    if isinstance(gate, Unjudged):
        return [_command("error", title, gate_words(gate))]
    if not gate.is_exceeded:
        if not gate.untrusted:
            return [_command("notice", title, gate_words(gate))]
        return [_command("warning", title, gate_words(gate))]
    lines = [_command("error", title, gate_words(gate))]
    by_line: dict[tuple[str, str], list[Row]] = {}
    for row in gate.blame:
        place = _SITE.fullmatch(row.site or "")
        if place is not None and _excess(gate, row) > 0:
            by_line.setdefault((place[1], place[2]), []).append(row)
    worst = sorted(by_line.items(), key=lambda item: -sum(_excess(gate, row) for row in item[1]))
    for (file, line), rows in worst[:_N_LINES]:
        lines.append(_command("error", title, _words(gate, rows), file=_below(file, folder), line=line))
    return lines


def _excess(gate: Gate, row: Row) -> int:
    """What a row grew by since the baseline, or holds where there is none."""
    return row.b_bytes if gate.baseline is None else row.delta_bytes


def _words(gate: Gate, rows: Sequence[Row]) -> str:
    """What a line holds, its largest holders by name."""
    n_bytes = sum(_excess(gate, row) for row in rows)
    size = f"{format_bytes(n_bytes)} at the peak" if gate.baseline is None else f"{signed_bytes(n_bytes)} at the peak"
    named = ", ".join(f"{row_name(row)} ({row_label(row.category)})" for row in rows[:_N_NAMED])
    more = f" and {len(rows) - _N_NAMED} more" if len(rows) > _N_NAMED else ""
    return f"{size}: {named}{more}"


def _below(file: str, folder: PurePath) -> str:
    try:
        return PurePath(file).relative_to(folder).as_posix()
    except ValueError:
        return file


def _command(kind: str, title: str, message: str, **properties: str) -> str:
    """A workflow command; what would end a property or the line is escaped as GitHub asks for, or a blank."""
    given = {**properties, "title": title}
    listed = ",".join(
        f"{name}={_escaped(value).replace(':', '%3A').replace(',', '%2C')}" for name, value in given.items()
    )
    return f"::{kind} {listed}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return printable(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))
