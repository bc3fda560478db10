"""What replays of requests found, in words."""

from __future__ import annotations

import dataclasses

import pytest

from memscope.gpus import find_gpu
from memscope.serving.budget import BudgetInputs
from memscope.serving.model_config import read_model_config
from memscope.serving.question import ServingQuestion, plan_serving
from memscope.serving.result import KvResult
from memscope.serving.simulate import simulate
from memscope.units import GiB
from memscope.words.serving import (
    CLAIMED_PARTS,
    best_result,
    budget_finding,
    device_words,
    manager_label,
    refusal_words,
    requests_words,
    scheduler_words,
    serving_finding,
    shape_words,
)
from tests.serving.small_tables import job, table

MANY = table([(i * 40, 6 + i % 5, 3 + i % 7) for i in range(60)])


def test_a_longest_sequence_that_does_not_fit_is_said_with_what_it_lacks() -> None:
    config = read_model_config("llama-3.1-8b")
    # 128 KiB a token: 1,000 blocks of 16 tokens.
    memory = BudgetInputs(find_gpu("RTX3090-24GB").total_bytes, kv_bytes=16_000 * 131_072)
    fits = plan_serving(ServingQuestion(config, "RTX3090-24GB", memory, max_length=16_000))
    assert shape_words(fits).endswith("the longest sequence is 16,000 tokens.")
    plan = plan_serving(ServingQuestion(config, "RTX3090-24GB", memory, max_length=16_001))
    assert shape_words(plan).endswith(
        "the longest sequence is 16,001 tokens, which does not fit: 2.0 MiB are missing, or 16,000 tokens at most."
    )


def result(manager: str = "paged", **options: int) -> KvResult:
    return simulate(job(MANY, manager, **({"n_tokens": 96, "max_length": 32} | options)))


@pytest.fixture(scope="module")
def results() -> list[KvResult]:
    return [result("max-length"), result("paged"), result("paged", block_size=8), result("radix")]


def with_peak(one: KvResult, peak: int) -> KvResult:
    return dataclasses.replace(one, peak_concurrent_requests=peak)


def test_the_parts_of_what_is_claimed_are_all_of_it(results: list[KvResult]) -> None:
    for one in results:
        assert sum(part.share_frac(one.waste) for part in CLAIMED_PARTS) == pytest.approx(1)


def test_the_verdict_names_the_best_and_the_worst(results: list[KvResult]) -> None:
    most = serving_finding(results[:2])
    assert most.startswith(f"paged serves {results[1].peak_concurrent_requests} at once, max-length ")
    assert serving_finding([]) == "No request could be served"
    swept = [with_peak(one, peak) for one, peak in zip(results[:3], (1, 9, 8), strict=True)]
    assert "paged (4)" in serving_finding(swept)
    assert serving_finding([with_peak(results[1], 1)]).startswith("paged serves 1 request at once")
    twin = dataclasses.replace(results[3], waste=results[1].waste)
    same = serving_finding([with_peak(one, 5) for one in (results[1], twin)])
    assert same.startswith("All 2 serve 5 requests at once")
    apart = serving_finding([with_peak(one, 5) for one in (results[0], results[1])])
    assert apart.startswith("All serve 5 requests at once; tokens fill ")
    assert "with max-length" in apart


def test_of_managers_that_serve_as_many_the_first_is_best_unless_it_wastes_more(results: list[KvResult]) -> None:
    low, paged, radix = (with_peak(results[i], 5) for i in (0, 1, 3))
    close = dataclasses.replace(radix, waste=paged.waste)
    assert best_result([low, paged, close]) is paged
    assert best_result([]) is None


def test_a_plan_is_said_in_sentences() -> None:
    question = ServingQuestion(read_model_config("mistral-7b"), "H100-80GB", BudgetInputs(80 * GiB), tensor_parallel=2)
    plan = plan_serving(question)
    assert budget_finding(plan).startswith("mistral-7b on 2 × H100-80GB with 80.0 GiB leaves ")
    assert "on each for keys and values" in budget_finding(plan)
    assert "in layers that keep 4,096 tokens" in shape_words(plan)
    assert requests_words(plan) == "No requests."
    assert scheduler_words(plan).startswith("Chunked scheduler, at most 256 requests")
    served = plan_serving(dataclasses.replace(question, requests=MANY))
    assert requests_words(served).startswith("60 requests from a test: ")


def test_labels_tell_sizes_and_refusals_say_why(results: list[KvResult]) -> None:
    assert manager_label("virtual", None, 2 << 20) == "virtual (2.0 MiB)"
    assert manager_label("radix", None) == "radix"
    assert refusal_words(results[1], 32) is None
    refused = dataclasses.replace(results[1], n_refused=3)
    assert refusal_words(refused, 32) == "3 requests are refused: longer than 32 tokens, or than the memory"


def test_memory_that_was_given_in_place_of_the_gpus_is_named() -> None:
    config = read_model_config("llama-3-8b")

    def words(total_bytes: int, name: str = "H100-80GB", tensor_parallel: int = 1) -> str:
        return device_words(ServingQuestion(config, name, BudgetInputs(total_bytes), tensor_parallel=tensor_parallel))

    assert words(find_gpu("H100-80GB").total_bytes) == "H100-80GB"
    assert words(40 * GiB) == "H100-80GB with 40.0 GiB"
    assert words(24 * GiB, "24GiB", 2) == "2 × 24GiB"
