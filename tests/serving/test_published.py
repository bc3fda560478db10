"""Where key/value memory goes, beside the published shares (PagedAttention, arXiv 2309.06180, figure 2)."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from memscope.serving.result import KvResult
from memscope.serving.simulate import simulate

N_REQUESTS = 2000


@cache
def _benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "serving.py"
    spec = importlib.util.spec_from_file_location("serving_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _result(manager: str) -> KvResult:
    return simulate(_benchmark().paper_job(N_REQUESTS, manager))


@pytest.mark.parametrize("manager", ["max-length", "oracle-length", "buddy", "paged"])
def test_shares_are_near_the_published_ones(manager: str) -> None:
    share = _result(manager).kv_token_share_frac
    assert share is not None
    assert 100 * share == pytest.approx(_benchmark().PUBLISHED[manager][1], abs=4)


def test_baselines_hold_tokens_in_a_fifth_to_two_fifths_of_their_memory() -> None:
    shares = {name: _result(name).kv_token_share_frac or 0 for name in ("max-length", "oracle-length", "buddy")}
    assert all(0.18 <= share <= 0.40 for share in shares.values())
    assert min(shares, key=lambda name: shares[name]) == "max-length"


def test_blocks_of_16_waste_less_than_a_twenty_fifth() -> None:
    assert (_result("paged").kv_token_share_frac or 0) > 0.96


def test_smaller_blocks_waste_less() -> None:
    shares = []
    for size in (8, 16, 64, 256):
        one = _benchmark().paper_job(N_REQUESTS, "paged")
        options = type(one.options)(block_size=size, max_length=one.options.max_length)
        result = simulate(type(one)(**{**{name: getattr(one, name) for name in one.__slots__}, "options": options}))
        shares.append(result.waste.internal / result.waste.claimed)
    assert shares == sorted(shares)


@pytest.mark.parametrize("lengths", ["alpaca", "sharegpt"])
def test_samples_save_by_sharing_what_is_published(lengths: str) -> None:
    fewest, most = _benchmark().PUBLISHED_SAVINGS[lengths]
    saved = [simulate(_benchmark().sampling_job(lengths, n)).sharing_saved_frac or 0 for n in (2, 4, 6)]
    assert 100 * saved[0] == pytest.approx(fewest, abs=1.5)
    assert 100 * saved[2] == pytest.approx(most, abs=1.5)
    assert saved == sorted(saved)
