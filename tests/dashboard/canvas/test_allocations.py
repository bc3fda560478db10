"""What the browser gets of a range of events: the allocations in use then, and what those left out hold."""

from __future__ import annotations

import numpy as np
import pytest
from memscope_dashboard.canvas.allocations import drawn_allocations, packed_allocations

from memscope.analysis import Analysis
from memscope.device.device import Device
from tests.dashboard.canvas.test_packed import unpacked
from tests.naive_layout import random_layout
from tests.training_trace import training_trace

DEVICES = {
    "training": Analysis(training_trace()).device(),
    "random": Analysis(random_layout(5, 200).trace()).device(),
}


def heights(device: Device, low: int, high: int, limit: int) -> dict[int, int]:
    """Bytes that the picture has at each moment of a range where it says all, by following the answer alone."""
    header, columns = unpacked(packed_allocations(device, low, high, limit))
    size = columns["size_low"].astype(object) + columns["size_high"].astype(object) * (1 << 32)
    left_out = columns["left_out_low"].astype(object) + columns["left_out_high"].astype(object) * (1 << 32)
    assert (header["low"], header["high"]) == (low, high)
    found = {}
    for moment, rest in zip(columns["sample"].tolist(), left_out.tolist(), strict=True):
        live = (columns["start"] <= moment) & (columns["end"] > moment)
        found[moment] = int(size[live].sum()) + int(rest)
    return found


@pytest.mark.parametrize("limit", [1, 7, 10_000])
@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_the_heights_of_the_picture_are_the_bytes_in_use(device: Device, limit: int) -> None:
    n = device.n_events
    for low, high in ((0, n), (n // 3, n // 2), (n, n), (0, 0)):
        found = heights(device, low, high, limit)
        assert found == {moment: int(device.usage.active_bytes[moment]) for moment in range(low, high + 1)}


def test_those_that_cover_most_bytes_and_events_are_drawn_and_the_others_counted() -> None:
    device = DEVICES["training"]
    n = device.n_events
    everything = drawn_allocations(device, 0, n, 10_000)
    few = drawn_allocations(device, 0, n, 10)
    assert everything.n_left_out == 0
    assert not everything.left_out_counts.any()
    assert len(few.rows) == 10
    assert few.n_left_out == len(everything.rows) - 10
    area = device.allocations.block_bytes[everything.rows] * (everything.end - everything.start)
    drawn = np.isin(everything.rows, few.rows)
    assert area[drawn].min() >= area[~drawn].max()
    assert np.all(np.diff(few.start) >= 0), "the order in which they were made is the order in which they are stacked"
    for moment in (0, n // 2, n):
        live = (everything.start <= moment) & (everything.end > moment) & ~drawn
        assert few.left_out_counts[np.searchsorted(few.sample, moment)] == np.count_nonzero(live)


def test_names_are_those_of_the_library() -> None:
    device = DEVICES["training"]
    header, columns = unpacked(packed_allocations(device, 0, device.n_events))
    for place, row in enumerate(columns["row"].tolist()):
        assert header["owners"][columns["owner"][place]] == (device.owner_of(row) or "")
        assert header["sites"][columns["site"][place]] == (device.site_of(row) or "")
        assert header["categories"][columns["category"][place]] == device.category_of(row).label
        address = int(columns["address_low"][place]) | int(columns["address_high"][place]) << 32
        assert address == int(device.trace.real_addresses(device.allocations.address[[row]])[0])
