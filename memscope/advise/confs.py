"""The settings that a search tries: a grid of PyTorch's own options, and the neighbours of a good one."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from itertools import product

from memscope.replay.config import CachingAllocatorConfig
from memscope.trace.metadata import TraceMetadata
from memscope.units import MiB


def harmful_combinations(config: CachingAllocatorConfig, memory_fraction: float | None = None) -> tuple[str, ...]:
    """What speaks against a configuration, a sentence each; empty for most.

    ``memory_fraction`` is one in force beside the settings, by a call of the program; None for none.

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
    is_capped = config.memory_fraction < 1 or (memory_fraction is not None and memory_fraction < 1)
    if config.gc_threshold_frac and not is_capped:
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


_SINCE = {
    "expandable_segments": (2, 1),
    "large_segment_size_mb": (2, 11),
    "max_non_split_rounding_mb": (2, 6),
}
"""Release that brought an option; older ones refuse the string."""

_SPLIT_LIMITS_MIB = (32, 64, 128, 256, 512, 1024, 2048)
_DIVISIONS = (2, 4, 8, 16)
_SEGMENT_SIZES_MIB = (32, 64, 128)
_GC_THRESHOLDS = (0.6, 0.8, 0.9)


def torch_release(metadata: TraceMetadata) -> tuple[int, int] | None:
    """Major and minor version of the recording's PyTorch, None where it is not known."""
    match = re.match(r"(\d+)\.(\d+)", metadata.torch_version or "")
    return (int(match.group(1)), int(match.group(2))) if match else None


def variable_name(metadata: TraceMetadata) -> str:
    """Environment variable that the recording's PyTorch reads; ``PYTORCH_ALLOC_CONF`` since 2.9, on every platform."""
    release = torch_release(metadata)
    if release is None or release >= (2, 9):
        return "PYTORCH_ALLOC_CONF"
    return "PYTORCH_HIP_ALLOC_CONF" if metadata.is_rocm else "PYTORCH_CUDA_ALLOC_CONF"


def _knows(release: tuple[int, int] | None, option: str) -> bool:
    """Whether a release knows an option; where the release is not known, only what every one since 2.6 has."""
    since = _SINCE.get(option, (0, 0))
    return since <= ((2, 6) if release is None else release)


def grid(
    release: tuple[int, int] | None, *, can_collect_garbage: bool, forbidden: Container[str] = ()
) -> tuple[str, ...]:
    """Settings worth a replay, simplest first; no harmful combination is among them.

    Parameters
    ----------
    release
        The recording's PyTorch.
    can_collect_garbage
        Whether a memory fraction is in force: without one, garbage collection does nothing.
    forbidden
        Options that the recording does not go with.
    """
    rounding = ["", *(f"roundup_power2_divisions:{n}" for n in _DIVISIONS)]
    splitting = ["", *(f"max_split_size_mb:{n}" for n in _SPLIT_LIMITS_MIB)]
    sizes = [""]
    if _knows(release, "large_segment_size_mb"):
        sizes += [f"large_segment_size_mb:{n}" for n in _SEGMENT_SIZES_MIB]
    found = [_join(*parts) for parts in product(splitting, rounding)]
    found += [_join(split, size) for split, size in product(splitting, sizes)]
    if _knows(release, "expandable_segments") and "expandable_segments" not in forbidden:
        found += [_join("expandable_segments:True", *parts) for parts in product(rounding, sizes)]
    if can_collect_garbage:
        thresholds = [f"garbage_collection_threshold:{t:g}" for t in _GC_THRESHOLDS]
        found += [_join(*parts) for parts in product(splitting, thresholds)]
    return tuple(sorted(set(found), key=lambda conf: (conf.count(":"), found.index(conf))))


def neighbours(conf: str, release: tuple[int, int] | None) -> tuple[str, ...]:
    """Settings near one: each number a little smaller and larger, and each option left out."""
    config = CachingAllocatorConfig.parse(conf)
    options = [option for option in conf.split(",") if option]
    found = [_join(*(other for other in options if other != option)) for option in options]
    for option in options:
        name = option.partition(":")[0]
        rest = [other for other in options if other != option]
        found += [_join(*rest, f"{name}:{value}") for value in _near(name, config)]
    if config.max_split_bytes is not None and _knows(release, "max_non_split_rounding_mb"):
        found += [_join(*options, f"max_non_split_rounding_mb:{n}") for n in (64, 256)]
    return tuple(dict.fromkeys(other for other in found if other != conf))


def _near(name: str, config: CachingAllocatorConfig) -> Iterator[str]:
    if name == "max_split_size_mb" and config.max_split_bytes is not None:
        yield from _scaled(config.max_split_bytes // MiB, 20)
    elif name == "large_segment_size_mb":
        yield from _scaled(config.large_segment_bytes // MiB, 11)
    elif name == "max_non_split_rounding_mb":
        yield from _scaled(config.max_non_split_rounding_bytes // MiB, 20)
    elif name == "garbage_collection_threshold":
        yield from (f"{t:g}" for t in (config.gc_threshold_frac - 0.05, config.gc_threshold_frac + 0.05) if 0 < t < 1)


def _scaled(value: int, least: int) -> Iterator[str]:
    """A half, three quarters, three halves and the double, in whole numbers of at least the least."""
    for numerator, denominator in ((1, 2), (3, 4), (3, 2), (2, 1)):
        scaled = value * numerator // denominator
        if scaled >= least:
            yield str(scaled)


def _join(*options: str) -> str:
    return ",".join(option for option in options if option)
