"""A recorded key/value cache in words."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.kv_cache.alternatives import replay_without_copies
from memscope.kv_cache.lens import CacheSummary, KvRow
from memscope.kv_cache.series import SPLITS
from memscope.trace.schema import NONE_ID
from memscope.words.kv_cache import (
    LABELS,
    MEANINGS,
    cache_finding,
    growth_verdict,
    kinds_words,
    layer_runs,
    pool_words,
)
from tests.kv_cache.serving_program import Program, generate
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    program = Program()
    program.drop(generate(program, prompt=40, n_new=30))
    generate(program, prompt=20, n_new=10, capacity=200)
    return program.analysis()


def row(name: str, key: int, token_bytes: int) -> KvRow:
    return KvRow(name, key, 1, token_bytes, 0, 0, 0, 0, 0)


def test_every_part_has_a_name_and_a_meaning() -> None:
    assert set(LABELS) == set(MEANINGS) == set(SPLITS)


def test_the_finding_says_what_fills_the_cache(analysis: Analysis) -> None:
    lens = analysis.opinions(0).kv_lens
    end = lens.device.lifetimes.last_event
    assert (
        cache_finding(lens, end)
        == "60 tokens fill 15.0 % of the key/value cache of 75.0 MiB; 63.8 MiB are tails without tokens"
    )
    assert cache_finding(lens, -1).startswith("No key/value cache is there at this moment; at its peak it was")
    growing = Program()
    generate(growing, prompt=40, n_new=3)
    filled = growing.analysis().opinions(0).kv_lens
    words = cache_finding(filled, filled.device.lifetimes.last_event)
    assert words == "86 tokens fill the key/value cache of 16.1 MiB"
    pool = Program()
    pool.malloc(1 << 30, "vllm")
    assert (
        cache_finding(pool.analysis().opinions(0).kv_lens, 1)
        == "The key/value cache is 1.0 GiB; what it holds only its owner knows"
    )
    assert (
        cache_finding(Analysis(training_trace()).opinions(0).kv_lens, 3)
        == "No key/value cache is known of in this trace"
    )


def test_layers_that_follow_each_other_with_the_same_bytes_are_one_run() -> None:
    rows = [row("layer 0", 0, 8), row("layer 1", 1, 8), row("layer 3", 3, 8), row("none", NONE_ID, 8)]
    assert [(name, n) for name, _, n in layer_runs(rows)] == [("layers 0–1", 2), ("layer 3", 1), ("none", 1)]
    assert layer_runs([]) == []


def test_a_cache_is_described_by_the_kinds_of_its_layers() -> None:
    def summary(*kinds: tuple[str, int]) -> CacheSummary:
        return CacheSummary(1, kinds, 2, None, None, None, None, 0, 1, 10)

    assert kinds_words(summary()) == "not recorded"
    assert kinds_words(summary(("DynamicLayer", 2), ("Evil\nLayer", 1))) == "DynamicLayer × 2, Evil Layer"
    assert pool_words(row("KV cache of vLLM", NONE_ID, 1 << 30)) == "KV cache of vLLM: 1.0 GiB in 1 tensor"


def test_the_verdict_on_growing_is_what_was_replayed(analysis: Analysis) -> None:
    replay = replay_without_copies(analysis.opinions(0).kv_lens)
    assert replay is not None
    saved = replay.saved_bytes(replay.alternatives[1])
    assert saved is not None
    assert saved > 0
    assert growth_verdict(replay).startswith("it costs ")
    assert growth_verdict(None) == "what that cost in reserved memory was not replayed"
