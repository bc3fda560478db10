"""How steps are formed, and what they cost."""

from __future__ import annotations

import pytest

from memscope.errors import FieldError, UsageError
from memscope.gpus import gpu_names
from memscope.serving._parameters import count_parameters
from memscope.serving.model_config import read_model_config
from memscope.serving.scheduler import PEAKS, SchedulerOptions, make_cost_model, peaks_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "x"}, "there is no scheduler 'x'"),
        ({"preemption": "x"}, "there is no preemption 'x'"),
        ({"max_requests": 0}, "at least one request and one token"),
        ({"preemption": "swap"}, "swapping needs swap space"),
        ({"swap_bytes": 1}, "swap space is used with the preemption swap only"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SchedulerOptions(**options)  # type: ignore[arg-type]


def test_every_gpu_of_the_catalogue_has_its_peaks() -> None:
    assert set(PEAKS) == set(gpu_names())


def test_given_peaks_replace_the_catalogues() -> None:
    assert peaks_of("T4-16GB", None, None) == (65e12, 320e9)
    assert peaks_of("T4-16GB", 1.0, None) == (1e12, 320e9)
    assert peaks_of("a card", 1.0, 10**9) == (1e12, 1e9)
    with pytest.raises(UsageError, match="a speed must be at least 1,000,000 operations, or bytes, a second"):
        peaks_of("a card", 0.0, 10**9)
    with pytest.raises(FieldError, match="the speed of a card is not known") as refused:
        peaks_of("a card", None, 10**9)
    assert list(refused.value.fields) == ["peaks"]


def test_a_token_costs_two_operations_a_parameter_and_four_a_query_element_looked_at() -> None:
    config = read_model_config("llama-3-8b")
    parameters = count_parameters(config)
    cost = make_cost_model(config, parameters, 16 * 10**9, (1e15, 1e12), tensor_parallel=2)
    assert cost.flops_per_token == 2 * parameters.n_active_params / 2
    # 32 layers × 32 heads × 128 elements, keys and values, two operations each, on two GPUs
    assert cost.flops_per_token_pair == 4 * 32 * 32 * 128 / 2
    assert (cost.flops_per_s, cost.bytes_per_s) == (0.5e15, 0.8e12)
    guessed = make_cost_model(config, None, 16 * 10**9, (1e15, 1e12), tensor_parallel=1)
    assert guessed.flops_per_token == 16e9
