"""What a device holds beyond PyTorch's reserved memory adds up to what it says is used."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.attribution.attribution import attribute
from memscope.attribution.driver_usage import (
    COLLECTIVES,
    CUDA_CONTEXT,
    NON_PYTORCH,
    OTHER_PROCESSES,
    PYTORCH_RESERVED,
    UNEXPLAINED,
    DriverUsage,
)
from memscope.attribution.ledger import Ledger, ledger_at
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.tables import SampleTable
from tests.properties import examples
from tests.sampled_trace import FULL, MS, MiB, sampled_trace


def lifetimes_of(*samples: dict[str, Any], **metadata: Any) -> DeviceLifetimes:
    return DeviceLifetimes(sampled_trace(*samples, **metadata), 0)


def ledger(lifetimes: DeviceLifetimes, event: int) -> Ledger:
    return ledger_at(lifetimes, attribute(lifetimes), event)


def count(lifetimes: DeviceLifetimes, event: int) -> DriverUsage:
    found = ledger(lifetimes, event).driver_usage
    assert found is not None
    return found


def rows(found: DriverUsage) -> dict[str, int]:
    assert found.total_bytes == sum(row.bytes for row in found.rows)
    return {row.name: row.bytes for row in found.rows}


def test_each_row_of_a_full_sample() -> None:
    found = count(lifetimes_of(FULL), 1)
    assert rows(found) == {
        PYTORCH_RESERVED: 2 * MiB,
        NON_PYTORCH: 498 * MiB,
        OTHER_PROCESSES: 390 * MiB,
        UNEXPLAINED: 10 * MiB,
    }
    assert (found.event, found.time_ns, found.is_same_reserved) == (1, 150 * MS, True)
    assert found[NON_PYTORCH] == 498 * MiB
    with pytest.raises(KeyError):
        found["nonsense"]


def test_what_was_told_apart_before_the_sample_has_rows_of_its_own() -> None:
    parts = {"0": [[CUDA_CONTEXT, 50 * MS, 300 * MiB], [COLLECTIVES, 120 * MS, 90 * MiB], [COLLECTIVES, 160 * MS, 5]]}
    found = rows(count(lifetimes_of(FULL, extra={"device_parts": parts}), 1))
    assert (found[CUDA_CONTEXT], found[COLLECTIVES], found[NON_PYTORCH]) == (300 * MiB, 90 * MiB, 108 * MiB)


def test_parts_that_are_more_than_there_is_are_not_told_apart() -> None:
    parts = {"0": [[CUDA_CONTEXT, 50 * MS, 499 * MiB]]}
    found = rows(count(lifetimes_of(FULL, extra={"device_parts": parts}), 1))
    assert CUDA_CONTEXT not in found
    assert found[NON_PYTORCH] == 498 * MiB


def test_what_was_not_measured_has_no_row_and_is_unexplained() -> None:
    hidden_others = {**FULL, "others_used_bytes": -1}
    assert rows(count(lifetimes_of(hidden_others), 1)) == {
        PYTORCH_RESERVED: 2 * MiB,
        NON_PYTORCH: 498 * MiB,
        UNEXPLAINED: 400 * MiB,
    }
    hidden_process = {**FULL, "process_used_bytes": -1, "others_used_bytes": -1}
    assert rows(count(lifetimes_of(hidden_process), 1)) == {PYTORCH_RESERVED: 2 * MiB, UNEXPLAINED: 898 * MiB}


def test_the_context_of_an_emulated_device_is_known_where_processes_are_not_told_apart() -> None:
    hidden = {**FULL, "process_used_bytes": -1, "others_used_bytes": -1}
    emulated = {"emulated": True, "emulated_overhead_bytes": 512 * MiB}
    assert rows(count(lifetimes_of(hidden, extra=emulated), 1)) == {
        PYTORCH_RESERVED: 2 * MiB,
        CUDA_CONTEXT: 512 * MiB,
        UNEXPLAINED: 386 * MiB,
    }
    more_than_there_is = {**emulated, "emulated_overhead_bytes": 899 * MiB}
    assert CUDA_CONTEXT not in rows(count(lifetimes_of(hidden, extra=more_than_there_is), 1))


def test_samples_with_the_same_reserved_come_before_nearer_ones() -> None:
    early, late = FULL, {**FULL, "event": 5, "ms": 400}
    found = count(lifetimes_of(early, late), 2)  # the segment of 20 MiB is there after event 2
    assert (found.time_ns, found[PYTORCH_RESERVED], found.is_same_reserved) == (400 * MS, 22 * MiB, True)
    alone = count(lifetimes_of(early), 4)
    assert (alone.time_ns, alone[PYTORCH_RESERVED], alone.is_same_reserved) == (150 * MS, 2 * MiB, False)


def test_before_the_first_event_nothing_was_reserved() -> None:
    found = count(lifetimes_of({**FULL, "event": 0, "ms": 50}), -1)
    assert (found.event, found[PYTORCH_RESERVED], found[NON_PYTORCH]) == (-1, 0, 500 * MiB)


@pytest.mark.parametrize(
    "sample",
    [
        {**FULL, "event": 2, "ms": 198},  # while a segment was coming
        {**FULL, "process_used_bytes": MiB},  # the process holds less than PyTorch reserved: another's number
        {**FULL, "device_used_bytes": 500 * MiB},  # the processes hold more than is used
        {"event": 2, "ms": 150, "device_free_bytes": MiB},  # of a device whose total is not known
        {"event": 2, "ms": 150},
    ],
)
def test_a_sample_that_contradicts_what_was_reserved_is_not_used(sample: dict[str, Any]) -> None:
    found = ledger(lifetimes_of(sample), 1)
    assert found.driver_usage is None
    assert found.not_measured == "of its 1 sample none can be set against what was reserved"
    assert found.total_bytes == 2 * MiB


def test_an_out_of_memory_error_says_what_was_free() -> None:
    sample = {"event": 4, "ms": 300, "device_free_bytes": 100 * MiB}
    found = count(lifetimes_of(sample, device_total_bytes={0: 1000 * MiB}), 4)
    assert rows(found) == {PYTORCH_RESERVED: 22 * MiB, UNEXPLAINED: 878 * MiB}


def test_without_samples_and_in_a_dry_run_nothing_is_counted() -> None:
    assert ledger(lifetimes_of(), 1).not_measured == "the device was not sampled"
    assert ledger(lifetimes_of({**FULL, "device": 1}), 1).not_measured == "the device was not sampled"
    dry = lifetimes_of(FULL, source="dry-run")
    assert (ledger(dry, 1).driver_usage, ledger(dry, 1).not_measured) == (None, "a dry run has no device")


@examples(50)
@given(
    samples=st.lists(
        st.tuples(st.integers(0, 400), st.integers(-1, 40), st.integers(-1, 40), st.integers(-1, 40)), max_size=6
    ),
    event=st.integers(-1, 4),
)
def test_whatever_was_sampled_the_count_closes(samples: list[tuple[int, int, int, int]], event: int) -> None:
    times = (100, 101, 200, 201, 300)
    rows_given = [
        {
            "event": sum(ms >= at for at in times),
            "ms": ms,
            "device_used_bytes": used * MiB if used >= 0 else -1,
            "process_used_bytes": process * MiB if process >= 0 else -1,
            "others_used_bytes": others * MiB if others >= 0 else -1,
        }
        for ms, used, process, others in samples
    ]
    found = ledger(lifetimes_of(*rows_given), event).driver_usage
    if found is not None:
        assert rows(found)[PYTORCH_RESERVED] in (0, 2 * MiB, 22 * MiB)
        assert all(row.bytes >= 0 for row in found.rows)
        assert found.total_bytes in {row["device_used_bytes"] for row in rows_given}


def test_a_ledger_without_a_count_is_the_same_as_before() -> None:
    lifetimes = lifetimes_of(FULL)
    bare = dataclasses.replace(lifetimes.trace, samples=SampleTable.empty())
    assert ledger(DeviceLifetimes(bare, 0), 3).rows == ledger(lifetimes, 3).rows


def test_what_is_reserved_above_the_devices_size_is_not_there() -> None:
    lifetimes = lifetimes_of(device_total_bytes={0: 16 * MiB})
    assert ledger(lifetimes, 1).unbacked_bytes == 0
    asleep = ledger(lifetimes, 4)
    assert (asleep.total_bytes, asleep.unbacked_bytes) == (22 * MiB, 6 * MiB)


def test_what_the_device_says_is_not_used_while_it_is_reserved_is_not_there() -> None:
    asleep = {"event": 5, "ms": 400, "device_used_bytes": 9 * MiB}
    assert ledger(lifetimes_of(asleep), 4).unbacked_bytes == 13 * MiB
    assert ledger(lifetimes_of(asleep), 1).unbacked_bytes == 0  # something else was reserved then
    assert ledger(lifetimes_of(FULL), 1).unbacked_bytes == 0
    hasty = {**asleep, "event": 4, "ms": 198}
    assert ledger(lifetimes_of(hasty), 4).unbacked_bytes == 0
    assert ledger(lifetimes_of(asleep, device_total_bytes={0: 8 * MiB}), 4).unbacked_bytes == 14 * MiB
