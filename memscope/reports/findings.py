"""Findings as text, as JSON and as a part of the HTML report."""

from __future__ import annotations

from html import escape
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.text import Text

from memscope.findings.finding import Finding, Findings, Severity
from memscope.trace.schema import NONE_ID

_STYLES = {Severity.SEVERE: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_INDENT = 10
_WIDTH = 120
_NOTHING = "Nothing found that needs attention."


def print_findings(findings: Findings, console: Console) -> None:
    """Print a device's findings, worst first, and what could not be looked for."""
    console.print()
    console.print(Text("Findings", style="bold"))
    for finding in findings.findings:
        label = Text(f"  {finding.severity.label:<8}", style=_STYLES[finding.severity])
        console.print(label + Text(finding.title))
        for line in wrap(_with_event(finding), width=min(console.width, _WIDTH) - _INDENT):
            console.print(Text(f"{'':{_INDENT}}{line}", style="dim"))
    if not findings.findings:
        console.print(f"  {_NOTHING}")
    for note in findings.notes:
        console.print(Text(f"  · {note}", style="dim"))


def _with_event(finding: Finding) -> str:
    return finding.text if finding.event == NONE_ID else f"{finding.text} (event {finding.event:,})"


def findings_json(findings: Findings) -> list[dict[str, Any]]:
    """A device's findings, worst first."""
    return [
        {
            "kind": finding.kind,
            "severity": finding.severity.label,
            "device": finding.device,
            "title": finding.title,
            "text": finding.text,
            "bytes": finding.bytes,
            "event": finding.event,
            "view": finding.view,
            "rows": list(finding.rows),
            "sites": list(finding.sites),
            "evidence": dict(finding.evidence),
        }
        for finding in findings.findings
    ]


def findings_html(findings: Findings) -> str:
    """A device's findings as a list; markup in what they name is escaped."""
    classes = {Severity.SEVERE: "bad", Severity.WARNING: "warn", Severity.INFO: "quiet"}
    items = "".join(
        f'<li><b class="{classes[finding.severity]}">{finding.severity.label}</b> {escape(finding.title)}'
        f'<br><span class="quiet">{escape(_with_event(finding))}</span></li>'
        for finding in findings.findings
    )
    listed = f"<ul>{items}</ul>" if items else f"<p>{_NOTHING}</p>"
    return listed + "".join(f'<p class="quiet">{escape(note)}</p>' for note in findings.notes)
