"""What a step needs for the batch that it has: a longer batch needs more, and that is no change of the code.

Each step of the runs of a baseline is a sample: its inputs at its highest moment, and what was allocated then.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscope.device.device import Device
from memscope.trace.categories import Category

_MOST_SIZES = 64


@dataclass(frozen=True, slots=True)
class SizePeak:
    """What steps with so many bytes of inputs had allocated at most, and how far the runs that had some lay apart."""

    inputs_bytes: int
    highest_bytes: int
    noise_bytes: int
    n_runs: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What is needed for inputs of a size at most, and how far that can be off."""

    highest_bytes: int
    noise_bytes: int


def step_peaks(device: Device) -> dict[int, int]:
    """The most that steps had allocated, by the bytes of inputs that they had then.

    A run's first step, which has no optimizer states yet, is none of them if there are others; without steps the run is
    one. Steps whose inputs were not told at that moment are left out.
    """
    allocated, inputs = device.usage.allocated_bytes, device.category_usage.get(Category.INPUTS)
    if inputs is None:
        return {}
    steps, spans = device.steps, [(0, len(allocated))]
    if steps is not None and len(steps):
        ends = zip(steps.begin.tolist(), steps.end.tolist(), strict=True)
        spans = [(device.usage.index_of(begin), device.usage.index_of(end)) for begin, end in ends]
    found: dict[int, int] = {}
    for begin, end in spans[1:] or spans:
        if end > begin:
            at = begin + int(np.argmax(allocated[begin:end]))
            size = int(inputs[at])
            found[size] = max(found.get(size, 0), int(allocated[at]))
    found.pop(0, None)
    return found


def size_peaks(runs: Sequence[dict[int, int]]) -> tuple[SizePeak, ...]:
    """The same of several runs: in the order of the sizes; beyond 64, neighbours go by the largest of them."""
    sizes = sorted({size for run in runs for size in run})
    groups = [group.tolist() for group in np.array_split(np.array(sizes, np.int64), min(len(sizes), _MOST_SIZES) or 1)]
    found = []
    for group in groups:
        peaks = [max(run[size] for size in group if size in run) for run in runs if any(size in run for size in group)]
        if peaks:
            found.append(SizePeak(group[-1], max(peaks), max(peaks) - min(peaks), len(peaks)))
    return tuple(found)


def expected(sizes: Sequence[SizePeak], inputs_bytes: int) -> Expected | None:
    """What a run needs whose inputs at its peak are so large.

    Steps with as large inputs say it. Between two sizes the straight line between them does: what grows faster than its
    inputs lies below it, so that a change is missed rather than imagined. Below the smallest size it is what that one
    needs; beyond the largest nobody knows.

    Returns
    -------
    Expected or None
        None where all had inputs of one size, or the size is 0 or beyond theirs. The noise is how far runs lie apart at
        the size; where fewer than two had it, the furthest that they do at any; and where the line is taken, that a
        size lies off the line of its neighbours if that is more.
    """
    if len(sizes) < 2 or not 0 < inputs_bytes <= sizes[-1].inputs_bytes:
        return None
    apart = max(size.noise_bytes for size in sizes)
    at = bisect_left([size.inputs_bytes for size in sizes], inputs_bytes)
    if sizes[at].inputs_bytes == inputs_bytes:
        return Expected(sizes[at].highest_bytes, sizes[at].noise_bytes if sizes[at].n_runs > 1 else apart)
    off = [
        abs(middle.highest_bytes - _on_line(low, high, middle.inputs_bytes))
        for low, middle, high in zip(sizes, sizes[1:], sizes[2:], strict=False)
    ]
    highest = sizes[0].highest_bytes if at == 0 else _on_line(sizes[at - 1], sizes[at], inputs_bytes)
    return Expected(highest, max(apart, *off) if off else apart)


def _on_line(low: SizePeak, high: SizePeak, inputs_bytes: int) -> int:
    """The peak at a size on the line between two others, rounded up."""
    rise = (high.highest_bytes - low.highest_bytes) * (inputs_bytes - low.inputs_bytes)
    return low.highest_bytes - (-rise // (high.inputs_bytes - low.inputs_bytes))
