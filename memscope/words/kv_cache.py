"""What a recorded key/value cache holds and wastes, in words; the names and meanings of what its bytes are."""

from __future__ import annotations

from collections.abc import Sequence

from memscope.kv_cache.alternatives import GrowthReplay
from memscope.kv_cache.lens import CacheSummary, KvLens, KvRow
from memscope.kv_cache.series import SPLITS
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction
from memscope.words.labels import printable

LABELS = {
    "token_bytes": "tokens",
    "other_bytes": "other",
    "unused_bytes": "unused",
    "stale_bytes": "stale",
    "untold_bytes": "not told",
    "rounding_bytes": "rounding",
}
MEANINGS = {
    "token_bytes": "hold tokens",
    "other_bytes": "lengths, window sizes and states that the cache keeps beside its tokens",
    "unused_bytes": "in tensors beyond their tokens: a static cache's tail, what a window left behind",
    "stale_bytes": "replaced by a newer copy and not freed yet, or freed and waiting for a stream",
    "untold_bytes": "in tensors of which only their owner knows what they hold, as an engine's pool",
    "rounding_bytes": "added by the allocator",
}
_REST = {
    "other_bytes": "are kept beside tokens",
    "unused_bytes": "are tails without tokens",
    "stale_bytes": "are old copies",
    "untold_bytes": "are not told of",
    "rounding_bytes": "are the allocator's rounding",
}
NEGLIGIBLE_FRAC = 0.01
"""A difference below this share of the recorded peak is called none."""
N_POOLS = 12
"""Pools that are named one by one."""
_MAX_NAME = 80


def cache_finding(lens: KvLens, event: int) -> str:
    """What the cache holds at a moment, in plain words."""
    if not lens:
        return "No key/value cache is known of in this trace"
    total = lens.total_at(event)
    if not total.block_bytes:
        peak = lens.total_at(lens.peak_event).block_bytes
        return f"No key/value cache is there at this moment; at its peak it was {format_bytes(peak)}"
    size = format_bytes(total.block_bytes)
    if total.untold_bytes == total.block_bytes - total.rounding_bytes:
        return f"The key/value cache is {size}; what it holds only its owner knows"
    share = format_fraction(total.token_bytes / total.block_bytes)
    n_tokens = lens.tokens_at(event)
    tokens = f"{format_count(n_tokens)} tokens" if n_tokens else "Tokens"
    worst = max(SPLITS[1:], key=lambda name: int(getattr(total, name)))
    rest = int(getattr(total, worst))
    if rest <= 0.01 * total.block_bytes:
        return f"{tokens} fill the key/value cache of {size}"
    return f"{tokens} fill {share} of the key/value cache of {size}; {format_bytes(rest)} {_REST[worst]}"


def layer_runs(rows: Sequence[KvRow]) -> list[tuple[str, KvRow, int]]:
    """Layers that follow each other with the same bytes as one: their name, one of them, and how many they are."""
    runs: list[tuple[int, int, KvRow]] = []
    for row in rows:
        same = runs and all(getattr(runs[-1][2], name) == getattr(row, name) for name in SPLITS)
        if same and row.key != NONE_ID and row.key == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], row.key, row)
        else:
            runs.append((row.key, row.key, row))
    return [
        (row.name if first == last else f"layers {first}–{last}", row, last - first + 1) for first, last, row in runs
    ]


def kinds_words(cache: CacheSummary) -> str:
    """``DynamicLayer × 16``; not recorded where no layer was described."""
    if not cache.kinds:
        return "not recorded"
    names = [(printable(kind, _MAX_NAME), n) for kind, n in cache.kinds]
    return printable(", ".join(kind if n == 1 else f"{kind} × {n}" for kind, n in names), 2 * _MAX_NAME)


def pool_words(row: KvRow) -> str:
    """A pool and its tensors: ``KV cache of vLLM: 20.3 GiB in 24 tensors``."""
    tensors = "1 tensor" if row.n_tensors == 1 else f"{format_count(row.n_tensors)} tensors"
    return f"{printable(row.name, _MAX_NAME)}: {format_bytes(row.block_bytes)} in {tensors}"


def growth_verdict(replay: GrowthReplay | None) -> str:
    """What growing by copying cost, in one sentence."""
    if replay is None:
        return "what that cost in reserved memory was not replayed"
    once = next(one for one in replay.alternatives if one.name != replay.alternatives[0].name)
    saved = replay.saved_bytes(once)
    if saved is None:
        ended = [one.name for one in replay.alternatives if one.result.oom is not None]
        return f"replayed: {', '.join(ended)} runs out of memory"
    recorded = replay.alternatives[0].result.peak_reserved_bytes
    if abs(saved) <= NEGLIGIBLE_FRAC * recorded:
        return "it does not change the peak of reserved memory here"
    if saved < 0:
        return f"allocated at its final length from the start, the peak would be {format_bytes(-saved)} higher"
    return f"it costs {format_bytes(saved)} of the {format_bytes(recorded)} reserved at the peak"
