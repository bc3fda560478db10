"""Ranks side by side as one page: each rank's peak, its ledger, and what differs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from memscope.errors import UsageError
from memscope.reports.ranks_html import ranks_html, write_ranks_html
from tests.rank_traces import DIED, MiB, compare_acts, training


def test_the_page_has_each_ranks_peak_and_its_ledger(tmp_path: Path) -> None:
    comparison = compare_acts(training(10, 12, 14), DIED)
    content = ranks_html(comparison)
    for text in ("Rank 1 peaks highest: 70.0\u00a0MiB allocated", "run-rank0.memscope", "not recorded", "+38.0 MiB"):
        assert text in content
    assert content.count('class="picture"') == 2
    for source in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', content, re.DOTALL):
        assert json.loads(source)["data"]
    path = write_ranks_html(comparison, tmp_path / "ranks.html")
    assert path.read_text() == content
    with pytest.raises(UsageError):
        write_ranks_html(comparison, path)


def test_beyond_eight_ranks_a_table_has_the_extremes_and_the_median() -> None:
    content = ranks_html(compare_acts(*(training(10 + 2 * rank) for rank in range(9))))
    assert '<th class="num">highest</th><th class="">of</th><th class="num">median</th>' in content
    # Weights of 20 MiB and 10 to 26 of activations: 46, 38 and 30 MiB.
    sizes = [f'<span title="{mib * MiB:,} bytes">{mib}.0 MiB</span>' for mib in (46, 38, 30)]
    assert re.search(rf"step 0</td>.*?{sizes[0]}.*?rank 8.*?{sizes[1]}.*?{sizes[2]}.*?rank 0", content)
