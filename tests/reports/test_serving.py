"""The report of serving replays, as text and as JSON."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from memscope.reports.serving import ServingReport, print_serving, serving_json
from memscope.serving.budget import BudgetInputs
from memscope.serving.model_config import read_model_config
from memscope.serving.question import ServingQuestion, plan_serving
from memscope.serving.simulate import run_kv_jobs
from memscope.units import GiB
from tests.serving.small_tables import table

QUESTION = ServingQuestion(
    read_model_config("mistral-7b"),
    "H100-80GB",
    BudgetInputs(80 * GiB),
    managers=("paged", "virtual"),
    requests=table([(0, 500, 5), (10, 700, 2, 2), (20, 40_000, 9)]),
)


@pytest.fixture(scope="module")
def report() -> ServingReport:
    plan = plan_serving(QUESTION)
    return ServingReport(plan, tuple(run_kv_jobs(plan.jobs)))


def text_of(report: ServingReport) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_serving(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_text_has_the_budget_every_manager_and_what_was_refused(report: ServingReport) -> None:
    text = text_of(report)
    assert text.startswith("mistral-7b on H100-80GB")
    assert "a token takes 128.0 KiB in bf16 (128.0 KiB in layers that keep 4,096 tokens)" in text
    assert f"room for {report.plan.n_tokens:,} tokens, or {report.plan.n_blocks:,} blocks of 16" in text
    assert "3 requests from a test, 4 samples of them" in text
    refused = "1 requests are refused: longer than 32,768 tokens, or than the memory"
    assert f"paged (16): {refused}" in text
    assert f"virtual (2.0 MiB): {refused}" in text


def test_the_object_has_the_same_numbers_and_is_json(report: ServingReport) -> None:
    content = serving_json(report)
    assert json.loads(json.dumps(content)) == content
    assert sum(row["bytes"] or 0 for row in content["budget"]["rows"]) == 80 * GiB
    assert [one["manager"] for one in content["results"]] == ["paged", "virtual"]
    assert [one["n_refused"] for one in content["results"]] == [1, 1]
    assert content["model"]["kv_bytes_per_token_by_window"] == [{"window": 4096, "kv_bytes_per_token": 1 << 17}]


def test_without_requests_the_text_says_how_some_are_replayed() -> None:
    report = ServingReport(plan_serving(dataclasses.replace(QUESTION, requests=None)), ())
    assert "No requests were given" in text_of(report)
    assert serving_json(report)["requests"] is None
