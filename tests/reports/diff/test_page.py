"""A difference as a page that needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from memscope.compare.diff import diff_moments
from memscope.errors import UsageError
from memscope.reports.diff.page import diff_html, write_diff_html
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run
from tests.training_trace import HOSTILE

A = [Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1))]


def test_the_page_has_the_sum_the_waterfall_and_the_rows(tmp_path: Path) -> None:
    b = [*A, Take(4 * MiB, calls=line(7, HOSTILE)), Take(6 * MiB, Category.INPUTS, HOSTILE, line(8))]
    found = diff_moments(run(A, "a.memscope").peak(), run(b, "b.memscope").peak())
    content = diff_html([found])
    assert "holds 10.0\u00a0MiB more than a.memscope" in content
    assert HOSTILE not in content
    (light, dark) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', content, re.DOTALL)
    assert json.loads(light)["data"]
    assert json.loads(dark)["data"]
    assert 'title="+10,485,760 bytes"' in content
    path = write_diff_html([found], tmp_path / "diff.html")
    assert path.read_text() == content
    with pytest.raises(UsageError):
        write_diff_html([found], path)


def test_nothing_is_drawn_where_nothing_differs() -> None:
    content = diff_html([diff_moments(run(A, "a.memscope").peak(), run(A, "b.memscope").peak())])
    assert 'class="picture"' not in content
    assert "nothing differs" in content
