"""A question about serving, worked out before any replay."""

from __future__ import annotations

import pytest

from memscope.errors import UsageError
from memscope.serving.budget import BudgetInputs
from memscope.serving.model_config import ModelConfig, read_model_config
from memscope.serving.question import DEFAULT_BLOCK_SIZE, DEFAULT_MAX_LENGTH, ServingQuestion, plan_serving
from memscope.serving.scheduler import SchedulerOptions
from memscope.units import GiB
from tests.serving.small_tables import table

MEMORY = BudgetInputs(total_bytes=80 * GiB)
THREE = table([(0, 5, 5), (10, 7, 2), (20, 1, 9)])


def question(**others: object) -> ServingQuestion:
    given = {"config": read_model_config("llama-3-8b"), "gpu_name": "H100-80GB", "memory": MEMORY}
    return ServingQuestion(**(given | others))  # type: ignore[arg-type]


def test_without_requests_there_is_a_budget_and_nothing_to_replay() -> None:
    plan = plan_serving(question())
    # 32 layers × 8 heads × 128 elements × 2 (keys and values) × 2 bytes
    assert plan.shape.bytes_per_token == 32 * 8 * 128 * 2 * 2
    assert plan.n_tokens == plan.budget.kv_bytes // plan.shape.bytes_per_token
    assert plan.n_blocks == plan.n_tokens // DEFAULT_BLOCK_SIZE
    assert plan.max_length == 8192
    assert plan.jobs == ()
    assert plan.cost is None


def test_every_manager_and_block_size_asked_for_has_a_replay() -> None:
    plan = plan_serving(question(requests=THREE, managers=("paged", "buddy"), block_sizes=(8, 32), max_length=512))
    assert [(job.manager, job.options.block_size) for job in plan.jobs] == [("paged", 8), ("paged", 32), ("buddy", 8)]
    assert {job.kv_bytes for job in plan.jobs} == {plan.budget.kv_bytes}
    assert {job.options.max_length for job in plan.jobs} == {512}
    assert plan.cost is not None
    assert plan.cost.weight_bytes == next(row.bytes for row in plan.budget.rows if row.name == "weights")


def test_activations_are_sized_for_the_schedulers_steps() -> None:
    def activations(scheduler: SchedulerOptions) -> int:
        rows = plan_serving(question(scheduler=scheduler)).budget.rows
        return next(row.bytes for row in rows if row.name == "activations") or 0

    assert activations(SchedulerOptions(max_step_tokens=65_536)) > activations(SchedulerOptions(max_step_tokens=64))


def test_a_given_cache_still_counts_the_weights_for_its_times() -> None:
    given = BudgetInputs(total_bytes=80 * GiB, kv_bytes=GiB)
    plan = plan_serving(question(memory=given, requests=THREE))
    assert plan.budget.kv_bytes == GiB
    assert plan.cost is not None
    assert plan.parameters is not None
    assert plan.cost.weight_bytes == plan.parameters.bytes_per_gpu("none", 1)


def test_what_is_neither_known_nor_given_is_asked_for() -> None:
    unknown = ModelConfig(
        "x", "x", {"model_type": "new", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    )
    with pytest.raises(UsageError, match="give the weights' size"):
        plan_serving(question(config=unknown))
    with pytest.raises(UsageError, match="the speed of 24GiB is not known"):
        plan_serving(question(gpu_name="24GiB", requests=THREE))
    known = plan_serving(question(gpu_name="24GiB", requests=THREE, tflops=100.0, bandwidth_bytes_per_s=10**12))
    assert known.cost is not None


def test_a_model_without_a_longest_sequence_has_the_default_one() -> None:
    values = {
        key: value for key, value in read_model_config("llama-3-8b").values.items() if key != "max_position_embeddings"
    }
    assert plan_serving(question(config=ModelConfig("x", "x", values))).max_length == DEFAULT_MAX_LENGTH
