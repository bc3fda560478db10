"""The columns of the live allocations: what filters choose, in which order, summed by which groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from memscope_dashboard.live_allocations import live_table
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore

from memscope.analysis import load
from memscope.attribution.grouping import Grouping
from memscope.device.device import Moment
from tests.dashboard.pages import moment_data
from tests.trace.snapshot.snapshots import BASE, small, write

MiB = 1 << 20
HIGH = 1 << 63


def moment_of(store: TraceStore) -> Moment:
    return Query.from_data(moment_data(store)).moment(store)


def test_column_filters_choose_rows(store: TraceStore) -> None:
    table = live_table(moment_of(store))
    assert np.array_equal(
        table.matching(filters={"block_bytes": {"type": "greaterThanOrEqual", "filter": 3}}),
        np.flatnonzero(table.block_bytes >= 3 * MiB),
    )
    within = {"block_bytes": {"type": "inRange", "filter": 1, "filterTo": 4}}
    chosen = table.block_bytes[table.matching(filters=within)]
    assert len(chosen)
    assert np.all((chosen >= MiB) & (chosen <= 4 * MiB))
    has = table.matching(filters={"owner": {"type": "contains", "filter": "GRAD"}})
    has_not = table.matching(filters={"owner": {"type": "notContains", "filter": "grad"}})
    assert len(has)
    assert len(has) + len(has_not) == len(table)


def test_owners_are_sorted_by_letter_those_without_one_last(store: TraceStore) -> None:
    table = live_table(moment_of(store))
    order = table.sorted(np.arange(len(table)), [{"colId": "owner", "sort": "asc"}])
    owners = [table.owner.at(i) for i in order]
    named = [owner for owner in owners if owner]
    assert owners == sorted(named, key=str.lower) + [""] * (len(owners) - len(named))


def test_groups_name_their_largest_allocation_and_sum_to_the_rows(store: TraceStore) -> None:
    table = live_table(moment_of(store))
    groups = table.groups(np.arange(len(table)), Grouping.CATEGORY)
    assert sum(group.block_bytes for group in groups) == int(table.block_bytes.sum())
    assert sum(group.n_allocations for group in groups) == len(table)
    for group in groups:
        (largest,) = np.flatnonzero(table.rows == group.largest_row)
        assert table.block_bytes[largest] <= group.block_bytes


def test_the_search_finds_tags_and_addresses_as_the_process_saw_them(tmp_path: Path) -> None:
    snapshot = small()
    snapshot["device_traces"][0][1]["user_metadata"] = "epoch=0;Warmup"
    for place in (*snapshot["segments"][0]["blocks"], snapshot["segments"][0]):
        place["address"] += HIGH
    for event in snapshot["device_traces"][0]:
        event["addr"] += HIGH
    table = live_table(load(write(tmp_path, snapshot)).at(1))
    assert [table.tag.at(int(i)) for i in table.matching("warmup")] == ["epoch=0;Warmup"]
    assert not len(table.matching("cooldown"))
    assert len(table.matching(hex(BASE + HIGH))) == 1
