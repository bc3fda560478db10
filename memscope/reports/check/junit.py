"""What checks found as JUnit's XML, which CI systems read: a suite for each check, a case for each limit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from memscope.compare.gate import Gate, Unjudged
from memscope.files import whole_file
from memscope.units import format_bytes
from memscope.words.compare import row_name, signed_bytes
from memscope.words.gate import NOTHING_GREW, blame_heading, gate_words, limit_name, limit_words

_N_BLAMED = 15
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(gates: Sequence[Gate | Unjudged], path: str | Path, *, overwrite: bool = False) -> Path:
    """Write what checks found; the file appears whole or not at all.

    Raises
    ------
    UsageError
        If the file exists and ``overwrite`` is false.
    InputFileError
        If it cannot be written there.
    """
    with whole_file(path, overwrite=overwrite) as file:
        file.write(junit_xml(gates).encode())
    return Path(path)


def junit_xml(gates: Sequence[Gate | Unjudged]) -> str:
    """The XML. A limit that was passed is a failure; one that cannot be told, and a check not made, is an error."""
    root = ET.Element("testsuites", name="memscope check")
    for gate in gates:
        cases = _cases(gate)
        n_failures, n_errors = (sum(case.find(tag) is not None for case in cases) for tag in ("failure", "error"))
        suite = ET.SubElement(
            root,
            "testsuite",
            name=_xml(gate.check.name),
            tests=str(len(cases)),
            failures=str(n_failures),
            errors=str(n_errors),
            skipped="0",
        )
        suite.extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(gate: Gate | Unjudged) -> list[ET.Element]:
    if isinstance(gate, Unjudged):
        return [_unjudged(gate)]
    return [_case(gate, i) for i in range(len(gate.limits))]


def _case(gate: Gate, i: int) -> ET.Element:
    limit = gate.limits[i]
    name = f"{limit_name(limit)}, device {limit.device}"
    case = ET.Element("testcase", classname=_xml(f"memscope.{gate.check.name}"), name=name)
    if limit.is_kept is False:
        failure = ET.SubElement(case, "failure", type=limit.name, message=limit_words(gate, limit))
        failure.text = _xml("\n".join((blame_heading(gate), *_blame_lines(gate))))
    elif gate.untrusted:
        error = ET.SubElement(case, "error", type="untrusted", message=_xml(gate.untrusted[0]))
        error.text = _xml("\n".join(gate.untrusted))
    else:
        ET.SubElement(case, "system-out").text = limit_words(gate, limit)
    return case


def _unjudged(gate: Unjudged) -> ET.Element:
    case = ET.Element("testcase", classname=_xml(f"memscope.{gate.check.name}"), name="can be judged")
    ET.SubElement(case, "error", type="unreadable", message=_xml(gate_words(gate)))
    return case


def _blame_lines(gate: Gate) -> list[str]:
    if not gate.grown:
        return [NOTHING_GREW]
    lines = []
    for row in gate.grown[:_N_BLAMED]:
        size = format_bytes(row.b_bytes) if gate.baseline is None else signed_bytes(row.delta_bytes)
        site = f" ({row.site})" if row.site is not None and row.site != row.key else ""
        lines.append(f"{size}  {row.category}  {row_name(row)}{site}")
    return lines


def _xml(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return _NOT_XML.sub("�", text)
