"""Requests from distributions."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.errors import UsageError
from memscope.serving.requests import CHUNK_TOKENS, GeneratorOptions, generate_requests


def test_the_same_seed_makes_the_same_requests() -> None:
    options = GeneratorOptions(200, shared_prefix_frac=0.3)
    first, second, other = (generate_requests(options, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.prompt_tokens, second.prompt_tokens)
    assert np.array_equal(first.chunk_id, second.chunk_id)
    assert not np.array_equal(first.prompt_tokens, other.prompt_tokens)


def test_every_request_can_ask_for_samples() -> None:
    table = generate_requests(GeneratorOptions(20, n_samples=4))
    assert table.n_samples.tolist() == [4] * 20
    assert np.array_equal(table.prompt_tokens, generate_requests(GeneratorOptions(20)).prompt_tokens)
    with pytest.raises(UsageError, match="at least one sample"):
        generate_requests(GeneratorOptions(20, n_samples=0))


def test_lengths_have_the_published_means() -> None:
    table = generate_requests(GeneratorOptions(50_000))
    assert table.prompt_tokens.mean() == pytest.approx(161.31, rel=0.05)
    assert table.output_tokens.mean() == pytest.approx(337.99, rel=0.05)
    assert (table.prompt_tokens + table.output_tokens).max() <= 2048


def test_arrivals_have_the_rate_and_the_burstiness() -> None:
    for burstiness in (1.0, 4.0):
        table = generate_requests(GeneratorOptions(50_000, rate_per_s=5.0, burstiness=burstiness))
        gaps = np.diff(table.arrival_us) / 1e6
        assert gaps.mean() == pytest.approx(0.2, rel=0.05)
        assert gaps.var() / gaps.mean() ** 2 == pytest.approx(burstiness, rel=0.1)


def test_shared_prefixes_are_shared_by_as_many_as_asked() -> None:
    options = GeneratorOptions(4000, shared_prefix_frac=0.25, n_prefixes=2, prefix_tokens=64)
    table = generate_requests(options)
    ids, counts = np.unique(table.chunk_id, return_counts=True)
    common = ids[counts > 1]
    assert len(common) == 2 * 64 // CHUNK_TOKENS
    assert counts[counts > 1].sum() / (64 / CHUNK_TOKENS) == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"lengths": "none"},
        {"n_requests": 0},
        {"rate_per_s": 0.0},
        {"rate_per_s": float("nan")},
        {"burstiness": -1.0},
        {"shared_prefix_frac": 1.5},
        {"prefix_tokens": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        generate_requests(GeneratorOptions(**options))  # type: ignore[arg-type]


def test_times_that_cannot_be_counted_are_refused() -> None:
    table = generate_requests(GeneratorOptions(4))
    assert table.faster(2.0).arrival_us[-1] == np.rint(table.arrival_us[-1] / 2)
    for make in (lambda: generate_requests(GeneratorOptions(4, rate_per_s=1e-320)), lambda: table.faster(1e-320)):
        with pytest.raises(UsageError, match="would not arrive within 32 years"):
            make()
    assert generate_requests(GeneratorOptions(4, rate_per_s=1e300)).arrival_us.tolist() == [0, 0, 0, 0]
