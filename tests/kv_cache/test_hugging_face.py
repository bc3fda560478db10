"""The lens on dry runs of Hugging Face's caches: dynamic, static, with windows, quantised, offloaded, with beams."""

from __future__ import annotations

from pathlib import Path

import pytest

import memscope
from memscope.kv_cache.lens import KvLens
from memscope.kv_cache.series import SPLITS

cache_programs = pytest.importorskip("tests.capture.cache_programs", reason="needs torch and transformers")
from tests.capture.cache_rows import BATCH, N_HELD, NEW_TOKENS, PROMPT, TOKEN_BYTES, WINDOW  # noqa: E402

ALL_TOKENS = 2 * TOKEN_BYTES * BATCH * 2
"""One token of each sequence: keys and values of two layers."""


def lens_of(name: str, folder: Path) -> KvLens:
    """A program's recording, up to where its cache is still there."""
    path = folder / "run.memscope"
    with memscope.record(path, backend="dry-run"):
        kept = cache_programs.PROGRAMS[name]()
    del kept
    lens = memscope.load(path).opinions().kv_lens
    total = sum(getattr(lens.series, split) for split in SPLITS)
    table = lens.device.lifetimes.allocations
    assert (total == lens.device.lifetimes.weighted_usage(lens.parts.rows, table.block_bytes[lens.parts.rows])).all()
    return lens


def end_of(lens: KvLens) -> int:
    """The last event after which all of the cache is there: that of its last noted length."""
    noted = [lengths.event[-1] for lengths in lens.fill.lengths.values()]
    return int(max(noted)) - 1


def test_a_dynamic_cache_holds_its_tokens_and_nothing_else(tmp_path: Path) -> None:
    lens = lens_of("dynamic", tmp_path)
    end = lens.total_at(end_of(lens))
    assert (end.token_bytes, end.unused_bytes, end.untold_bytes) == (N_HELD * ALL_TOKENS, 0, 0)
    assert lens.tokens_at(end_of(lens)) == N_HELD * BATCH
    assert lens.bytes_per_token(end_of(lens)) == 4 * TOKEN_BYTES
    assert lens.cost.n_copies == (NEW_TOKENS - 1) * 4
    assert lens.cost.moved_bytes == sum(range(PROMPT, N_HELD)) * ALL_TOKENS


def test_a_static_caches_tail_is_unused_until_tokens_come(tmp_path: Path) -> None:
    lens = lens_of("static", tmp_path)
    (cache,) = lens.caches
    assert cache.capacity_tokens == N_HELD
    assert cache.kinds == (("StaticLayer", 2),)
    end = lens.total_at(end_of(lens))
    assert (end.token_bytes, end.unused_bytes) == (N_HELD * ALL_TOKENS, 0)
    assert int(lens.series.unused_bytes.max()) == (N_HELD - PROMPT) * ALL_TOKENS
    assert end.other_bytes == 2 * 8
    assert lens.cost.n_copies == 0


def test_a_window_keeps_its_tokens_only(tmp_path: Path) -> None:
    lens = lens_of("sliding", tmp_path)
    end = lens.total_at(end_of(lens))
    assert end.token_bytes == (WINDOW - 1) * ALL_TOKENS
    # A tensor of the window and the token that has pushed the first one out of it.
    assert end.unused_bytes == ALL_TOKENS
    # The prompt is longer than the window, and stays as it is until the next token.
    assert int(lens.series.unused_bytes.max()) == (PROMPT - WINDOW + 1) * ALL_TOKENS
    assert lens.tokens_at(end_of(lens)) == N_HELD * BATCH


def test_layers_with_and_without_a_window_are_told_apart(tmp_path: Path) -> None:
    lens = lens_of("hybrid", tmp_path)
    windowed, full = lens.by_layer(end_of(lens))
    assert windowed.token_bytes == (WINDOW - 1) * ALL_TOKENS // 2
    assert full.token_bytes == N_HELD * ALL_TOKENS // 2


@pytest.mark.parametrize("name", ["fp8", "quanto"])
def test_a_quantised_cache_is_smaller_and_all_of_it_holds_tokens(name: str, tmp_path: Path) -> None:
    lens = lens_of(name, tmp_path)
    end = lens.total_at(end_of(lens))
    assert 0 < end.token_bytes < N_HELD * ALL_TOKENS
    assert (end.unused_bytes, end.untold_bytes) == (0, 0)
    assert lens.tokens_at(end_of(lens)) == N_HELD * BATCH
    assert lens.bytes_per_token(end_of(lens)) is None


def test_an_offloaded_cache_is_seen_while_it_is_on_the_device(tmp_path: Path) -> None:
    lens = lens_of("offloaded", tmp_path)
    whole = lens_of("dynamic", tmp_path / "whole") if (tmp_path / "whole").mkdir() is None else None
    assert whole is not None
    assert 0 < int(lens.series.token_bytes.max()) <= int(whole.series.token_bytes.max())
    assert len(lens.by_layer(lens.peak_event)) <= 2
    assert lens.series.token_bytes[-1] < N_HELD * ALL_TOKENS


def test_a_reordered_cache_is_copied_at_its_own_length(tmp_path: Path) -> None:
    lens = lens_of("beams", tmp_path)
    table, rows = lens.device.lifetimes.allocations, lens.parts.rows
    same = table.requested_bytes[rows[lens.growth.new]] == table.requested_bytes[rows[lens.growth.old]]
    assert same.any()
    assert not same.all()


def test_states_of_layers_without_attention_hold_no_tokens(tmp_path: Path) -> None:
    lens = lens_of("convolution", tmp_path)
    convolution, attention = lens.by_layer(end_of(lens))
    assert convolution.token_bytes == 0
    assert convolution.other_bytes > 0
    assert attention.token_bytes == N_HELD * ALL_TOKENS // 2


def test_the_encoders_part_has_a_length_of_its_own(tmp_path: Path) -> None:
    lens = lens_of("encoder-decoder", tmp_path)
    assert len(lens.caches) == 2
    assert {cache.n_tokens for cache in lens.caches} == {PROMPT, NEW_TOKENS}


def test_what_is_cropped_off_holds_no_tokens(tmp_path: Path) -> None:
    lens = lens_of("cropped", tmp_path)
    lengths = lens.fill.lengths[1]
    assert lengths.n_tokens[:2].tolist() == [PROMPT, PROMPT - 4]
    cropped = int(lengths.event[1])
    row = lens.total_at(cropped)
    assert (row.token_bytes, row.unused_bytes) == ((PROMPT - 4) * ALL_TOKENS, 4 * ALL_TOKENS)
    for event in range(cropped - 20, cropped + 60):
        at = lens.total_at(event)
        index = lens.device.lifetimes.usage.index_of(event)
        assert [getattr(at, name) for name in SPLITS] == [int(getattr(lens.series, name)[index]) for name in SPLITS]


def test_copies_of_a_cache_are_caches_before_they_are_used(tmp_path: Path) -> None:
    lens = lens_of("copied", tmp_path)
    assert len(lens.caches) == 2
    # The copy's own tensors, of the prompt's length, are replaced by the first pass that uses it.
    assert lens.cost.n_copies == 2 * 2
    assert lens.cost.moved_bytes == PROMPT * ALL_TOKENS
