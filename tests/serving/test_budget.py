"""Sharing out a device."""

from __future__ import annotations

import pytest

from memscope.errors import UsageError
from memscope.serving._parameters import count_parameters
from memscope.serving.budget import Budget, BudgetInputs, make_budget
from memscope.serving.model_config import read_model_config
from memscope.serving.shapes import KvShape
from memscope.units import GiB


def _budget(name: str = "llama-3-8b", tensor_parallel: int = 1, **inputs: object) -> Budget:
    config = read_model_config(name)
    shape = KvShape(config.kv_layers(), tensor_parallel=tensor_parallel)
    return make_budget(config, shape, count_parameters(config), BudgetInputs(**inputs))  # type: ignore[arg-type]


def _row(budget: Budget, name: str) -> int | None:
    return next(row.bytes for row in budget.rows if row.name == name)


def test_llama_on_an_80_gb_card_is_what_vllm_logged() -> None:
    # vLLM pull request 10511: 79.22 GiB, weights 14.96, outside PyTorch 1.79, activations 1.26, cache 53.29 GiB.
    budget = _budget(total_bytes=int(79.22 * GiB), context_bytes=int(1.79 * GiB))
    assert _row(budget, "weights") == pytest.approx(14.96 * GiB, rel=0.001)
    assert budget.kv_bytes == pytest.approx(53.29 * GiB, rel=0.02)
    given = _budget(total_bytes=int(79.22 * GiB), context_bytes=int(1.79 * GiB), activation_bytes=int(1.26 * GiB))
    assert given.kv_bytes == pytest.approx(53.29 * GiB, rel=0.0005)


def test_lines_sum_to_the_device() -> None:
    budget = _budget(total_bytes=80 * GiB, cuda_graph_bytes=GiB, context_bytes=GiB)
    assert sum(row.bytes or 0 for row in budget.rows) == 80 * GiB
    assert budget.rows[-1].bytes == budget.kv_bytes


def test_graphs_that_were_not_measured_are_not_zero() -> None:
    assert _row(_budget(total_bytes=80 * GiB), "CUDA graphs") is None


def test_a_model_too_large_for_the_device_is_refused_with_its_lines() -> None:
    with pytest.raises(UsageError, match=r"nothing is left for keys and values of 24\.0 GiB: .*weights 131\.4 GiB"):
        _budget("llama-3-70b", total_bytes=24 * GiB)


def test_where_nothing_is_left_it_says_how_much_is_missing_and_what_would_do() -> None:
    missing = r"5\.5 GiB are missing: weights of 8 bits \(6\.5 GiB less\) or 2 GPUs \(7\.5 GiB less\) would do"
    with pytest.raises(UsageError, match=missing):
        _budget(total_bytes=12 * GiB, context_bytes=GiB // 2)
    # What is said does: with nothing left there would be no budget.
    assert _budget(total_bytes=12 * GiB, context_bytes=GiB // 2, weight_format="int8").kv_bytes > 0
    assert _budget(total_bytes=12 * GiB, context_bytes=GiB // 2, tensor_parallel=2).kv_bytes > 0
    with pytest.raises(UsageError, match="are missing, which no single change would give"):
        _budget(total_bytes=GiB)
    with pytest.raises(UsageError, match=r"a utilisation of 100 % \(1\.7 GiB less\) or fewer requests and tokens"):
        _budget(total_bytes=17 * GiB, context_bytes=GiB // 4)


def test_tensor_parallelism_shares_weights() -> None:
    whole, half = (_row(_budget(total_bytes=80 * GiB, tensor_parallel=n), "weights") for n in (1, 2))
    assert whole is not None
    assert half == pytest.approx(whole / 2, rel=0.001)


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_utilisation_is_a_share(fraction: float) -> None:
    with pytest.raises(UsageError, match="not between 0 and 1"):
        _budget(total_bytes=80 * GiB, utilisation_frac=fraction)
