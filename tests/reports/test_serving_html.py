"""The report of serving replays as one page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from memscope.errors import UsageError
from memscope.reports.serving import ServingReport
from memscope.reports.serving_html import serving_html, write_serving_html
from memscope.serving.model_config import read_model_config
from memscope.serving.question import plan_serving
from memscope.serving.simulate import run_kv_jobs
from tests.reports.test_serving import QUESTION


@pytest.fixture(scope="module")
def report() -> ServingReport:
    config = dataclasses.replace(read_model_config("gpt2"), name="<b>mine</b>", is_partial=True)
    plan = plan_serving(dataclasses.replace(QUESTION, config=config, max_length=1024, block_sizes=(16, 64)))
    return ServingReport(plan, tuple(run_kv_jobs(plan.jobs)))


def test_the_page_has_a_picture_of_each_replay_and_says_what_was_refused(report: ServingReport) -> None:
    page = serving_html(report)
    assert "<b>mine</b>" not in page
    assert "&lt;b&gt;mine&lt;/b&gt;" in page
    for place in ("kv-shares", "kv-sweep", "kv-time-0", "kv-time-1", "kv-time-2"):
        assert f'id="{place}"' in page
    assert "paged (64): 1 requests are refused: longer than 1,024 tokens" in page
    assert "Only the text part of the model is counted." in page


def test_a_page_is_not_written_over_another(report: ServingReport, tmp_path: Path) -> None:
    budget = ServingReport(report.plan, ())
    path = write_serving_html(budget, tmp_path / "budget.html")
    assert "kv-shares" not in path.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        write_serving_html(budget, path)
    assert write_serving_html(budget, path, overwrite=True) == path
