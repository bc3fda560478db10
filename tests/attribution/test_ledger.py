"""The ledger closes to the byte at every event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.attribution.attribution import attribute
from memscope.attribution.ledger import FREE_PINNED, FREE_RELEASABLE, PENDING_FREES, ROUNDING, coverage_at, ledger_at
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category
from tests.naive_layout import NaiveLayout, random_layout
from tests.properties import examples

MiB = 1 << 20


@examples(20)
@given(seed=st.integers(0, 2**32 - 1), cut=st.floats(0, 0.9))
def test_the_ledger_sums_to_reserved_at_every_event(seed: int, cut: float) -> None:
    layout = random_layout(seed, 40)
    first = int(cut * len(layout.events))
    lifetimes = DeviceLifetimes(layout.trace(first), 0)
    attribution = attribute(lifetimes)
    for event in range(-1, lifetimes.n_events):
        ledger = ledger_at(lifetimes, attribution, event)
        assert ledger.total_of == "reserved"
        assert ledger.total_bytes == sum(row.bytes for row in ledger.rows)
        assert ledger.total_bytes == sum(size for _, size in layout.states[first + event + 1].segments)
        assert all(row.bytes >= 0 for row in ledger.rows)


def test_each_row_on_a_hand_sized_case() -> None:
    layout = NaiveLayout()
    kept = layout.malloc(3 * MiB + 1)  # takes 3 MiB + 512 of a 20 MiB segment
    pending = layout.malloc(2 * MiB)
    layout.free_request(pending)
    gone = layout.malloc(600)  # 1024 of a 2 MiB segment
    layout.free_request(gone)
    layout.free_complete(gone)
    assert kept.size == 3 * MiB + 512
    lifetimes = DeviceLifetimes(layout.trace(), 0)
    attribution = attribute(lifetimes)
    ledger = ledger_at(lifetimes, attribution, lifetimes.last_event)
    rows = {row.name: row.bytes for row in ledger.rows if row.bytes}
    assert rows == {
        "unknown": 3 * MiB + 1,
        ROUNDING: 511,
        PENDING_FREES: 2 * MiB,
        FREE_RELEASABLE: 2 * MiB,
        FREE_PINNED: 20 * MiB - 5 * MiB - 512,
    }
    assert ledger[FREE_RELEASABLE] == 2 * MiB
    with pytest.raises(KeyError):
        ledger["nonsense"]
    coverage = coverage_at(lifetimes, attribution, lifetimes.last_event)
    assert coverage.unknown_bytes == 3 * MiB + 1
    assert coverage.attributed_bytes == 0
    assert coverage.attributed_frac == 0.0


def test_categories_stand_in_stacking_order() -> None:
    lifetimes = DeviceLifetimes(random_layout(1, 5).trace(), 0)
    ledger = ledger_at(lifetimes, attribute(lifetimes), lifetimes.last_event)
    assert [row.name for row in ledger.rows if row.is_category] == [category.label for category in Category]
