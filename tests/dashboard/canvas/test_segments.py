"""Following the answer by hand gives the segments that the library has, at every moment."""

from __future__ import annotations

import numpy as np
import pytest
from memscope_dashboard.canvas.segments import packed_segments

from memscope.analysis import Analysis
from memscope.device.device import Device
from tests.dashboard.canvas.test_packed import unpacked
from tests.naive_layout import random_layout
from tests.training_trace import training_trace

DEVICES = {
    "training": Analysis(training_trace()).device(),
    "random": Analysis(random_layout(5, 200).trace()).device(),
    "another": Analysis(random_layout(11, 300).trace()).device(),
}
PAGE = 512


def _pages(address: int, size: int) -> range:
    assert address % PAGE == size % PAGE == 0
    return range(address // PAGE, (address + size) // PAGE)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_the_same_memory_is_reserved_at_every_moment(device: Device) -> None:
    _, columns = unpacked(packed_segments(device))

    def whole(name: str) -> list[int]:
        low, high = columns[f"{name}_low"].astype(object), columns[f"{name}_high"].astype(object)
        return list(low + high * (1 << 32))

    held: set[int] = set()
    for address, size in zip(whole("start_address"), whole("start_size"), strict=True):
        held.update(_pages(address, size))
    changes = list(
        zip(columns["moment"].tolist(), columns["takes"].tolist(), whole("address"), whole("size"), strict=True)
    )
    for moment in range(device.n_events + 1):
        while changes and changes[0][0] <= moment:
            _, takes, address, size = changes.pop(0)
            pages = set(_pages(address, size))
            assert held.isdisjoint(pages) if takes else held >= pages
            held = held | pages if takes else held - pages
        assert len(held) * PAGE == int(device.usage.reserved_bytes[moment])
    assert not changes


def test_groups_have_names_and_the_row_widths_of_the_map() -> None:
    device = DEVICES["random"]
    header, columns = unpacked(packed_segments(device))
    assert header["is_known"] is True
    assert len(header["groups"]) == len({group["name"] for group in header["groups"]})
    assert columns["group"].max() < len(header["groups"])
    used = np.unique(columns["group"][np.concatenate([columns["start_key"], columns["key"]])])
    peak = device.lifetimes.state_at(device.usage.peak_reserved_event)
    assert len(peak.segments)
    assert any(header["groups"][group]["row_bytes"] for group in used.tolist())
