"""What became of the names of a trace, as text and as JSON."""

from __future__ import annotations

import io

from memscope.reports.export.redaction import RedactionReport, print_redaction, redaction_json
from memscope.reports.terminal import Terminal

REPORT = RedactionReport("run.memscope", {"files": 3}, {"files": ("torch/a.py",), "labels": ("3",)}, ("notes: 1",), 2)


def printed(report: RedactionReport, *, lists_kept: bool = False) -> str:
    out = io.StringIO()
    print_redaction(report, Terminal(file=out, width=100), lists_kept=lists_kept)
    return out.getvalue()


def test_names_are_counted_by_kind_and_changes_are_said() -> None:
    text = printed(REPORT)
    assert "run.memscope, redacted" in text
    assert "left out: notes: 1" in text
    assert "2 allocations of another category" in text
    assert "torch/a.py" not in text
    assert "torch/a.py" in printed(REPORT, lists_kept=True)
    assert "every allocation has the category" in printed(REPORT._replace(n_categories_changed=0))


def test_json_has_the_same() -> None:
    said = redaction_json(REPORT)
    assert said["kept"] == {"files": ["torch/a.py"], "labels": ["3"]}
    assert (said["replaced"], said["n_categories_changed"]) == ({"files": 3}, 2)
