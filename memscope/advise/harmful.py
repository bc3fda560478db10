"""Allocator settings that are known to harm, or to do nothing, together."""

from __future__ import annotations

from memscope.replay.config import CachingAllocatorConfig


def harmful_combinations(config: CachingAllocatorConfig) -> tuple[str, ...]:
    """What speaks against a configuration, a sentence each; empty for most.

    Source: pytorch#123548 and ROCm#6603 for expandable segments with a split limit; the allocator's own code, as tested
    on PyTorch 2.6 to 2.15, for options without effect.
    """
    found = []
    if config.is_expandable and config.max_split_bytes is not None:
        found.append(
            "expandable_segments together with max_split_size_mb is known to harm: reserved memory can grow "
            "(pytorch#123548), and data was corrupted on ROCm (ROCm#6603); use one of them"
        )
    if config.is_expandable and config.gc_threshold_frac:
        found.append("garbage_collection_threshold never frees expandable segments: beside them it does almost nothing")
    if config.gc_threshold_frac and config.memory_fraction >= 1:
        found.append(
            "garbage_collection_threshold does nothing without a memory fraction below 1 "
            "(per_process_memory_fraction, or set_per_process_memory_fraction)"
        )
    if config.throws_on_malloc_oom:
        found.append(
            "throw_on_cudamalloc_oom rejects a request before cached memory is given back: "
            "programs that would survive a retry fail"
        )
    return tuple(found)
