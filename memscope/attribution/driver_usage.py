"""What a device holds beyond PyTorch's reserved memory, row by row, summing exactly to what the device says is used.

The device is sampled now and then, so its count belongs to a moment of its own. It is used only where it and what
PyTorch had reserved then can be set against each other: a sample taken while segments came or went says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from memscope.errors import InvariantError
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import BoolArray, Int64Array, SampleTable
from memscope.units import format_items

PYTORCH_RESERVED = "pytorch_reserved"
CUDA_CONTEXT = "cuda_context"
COLLECTIVES = "collectives"
NON_PYTORCH = "non_pytorch"
OTHER_PROCESSES = "other_processes"
UNEXPLAINED = "unexplained"

DEVICE_ROW_MEANINGS = {
    PYTORCH_RESERVED: "PyTorch's reserved memory, the ledger above",
    CUDA_CONTEXT: "taken by this process's CUDA context when it was created",
    COLLECTIVES: "taken at the first collective of a process group (NCCL)",
    NON_PYTORCH: "of this process, outside PyTorch: context, kernels, libraries",
    OTHER_PROCESSES: "of other processes on this device",
    UNEXPLAINED: "used, but nothing says by whom",
}

_SEGMENT_ACTIONS = (Action.SEGMENT_ALLOC, Action.SEGMENT_FREE, Action.SEGMENT_MAP, Action.SEGMENT_UNMAP)
_QUIET_NS = 5_000_000
"""A segment is given back some time after its event was written: a sample within this time of one is not used."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One line of a ledger. ``is_category`` tells requested bytes of a category from the allocator's own rows."""

    name: str
    bytes: int
    is_category: bool


@dataclass(frozen=True, slots=True)
class ModelledCollectives:
    """What communicators would hold beyond PyTorch's memory, which a dry run cannot see: published sizes, no measure.

    Attributes
    ----------
    n_communicators
        How many process groups a collective on the device had used by the end.
    low_bytes, high_bytes
        Between what all of them lie.
    """

    n_communicators: int
    low_bytes: int
    high_bytes: int


@dataclass(frozen=True, slots=True)
class DriverUsage:
    """Everything that is used on a device, at the moment of one sample.

    Attributes
    ----------
    event
        The event that it comes after, −1 for before the first; seldom the one that was asked for.
    time_ns
        When it was sampled, None where that was not recorded.
    rows
        PyTorch's reserved bytes, then what could be told apart beyond them. A row that was not measured is not there;
        its bytes are in ``unexplained``.
    total_bytes
        Their sum: what the device says is used.
    is_same_reserved
        Whether PyTorch had as much reserved then as at the event that was asked for.
    """

    event: int
    time_ns: int | None
    rows: tuple[LedgerRow, ...]
    total_bytes: int
    is_same_reserved: bool

    def __getitem__(self, name: str) -> int:
        """Bytes of the row of that name; KeyError if it was not measured."""
        for row in self.rows:
            if row.name == name:
                return row.bytes
        raise KeyError(name)


class DriverUsageSamples(NamedTuple):
    """Samples of one device, set against its events: int64 (n,) each, −1 is "not measured".

    Attributes
    ----------
    moment
        Index in the device's series of usage.
    reserved_bytes
        What PyTorch had reserved then.
    used_bytes
        Of the whole device, as it said, or its total less what was free.
    process_bytes, others_bytes
        Of this process and of all others; the others are taken only where this process was found.
    """

    moment: Int64Array
    time_ns: Int64Array
    reserved_bytes: Int64Array
    used_bytes: Int64Array
    process_bytes: Int64Array
    others_bytes: Int64Array

    def at(self, row: int) -> tuple[int, ...]:
        """One sample's values, in the order of the fields."""
        return tuple(int(column[row]) for column in self)

    def take(self, rows: BoolArray | Int64Array) -> DriverUsageSamples:
        """Some of the samples."""
        return DriverUsageSamples(*(column[rows] for column in self))


def driver_usage_samples(lifetimes: DeviceLifetimes) -> tuple[DriverUsageSamples, BoolArray]:
    """Every placed sample of a device, and which of them can be set against what was reserved: bool (n,).

    Linear in the events and the samples.
    """
    table = lifetimes.trace.samples
    taken = table.take((table.device == lifetimes.device) & (table.event != NONE_ID))
    samples = _placed(lifetimes, taken)
    reserved, used, process = samples.reserved_bytes, samples.used_bytes, samples.process_bytes
    known = np.where(process == NONE_ID, reserved, process) + np.maximum(samples.others_bytes, 0)
    is_usable: BoolArray = (reserved != NONE_ID) & (used != NONE_ID) & (known <= used)
    is_usable &= (process == NONE_ID) | (process >= reserved)
    is_usable &= _is_quiet(lifetimes, taken)
    return samples, is_usable


def driver_usage_at(lifetimes: DeviceLifetimes, event: int) -> tuple[DriverUsage | None, str]:
    """What the driver says is used, nearest to an event, or None, and why there is none.

    Of the usable samples those with the same reserved bytes come first, then the nearest. Linear in the events and the
    samples.

    Raises
    ------
    InvariantError
        If the rows do not sum to it, or one is negative.
    """
    reserved = lifetimes.usage.reserved_bytes
    if lifetimes.trace.metadata.source == "dry-run":
        return None, "a dry run has no device"
    if reserved is None:
        return None, "the segments were not recorded"
    n_taken = int((lifetimes.trace.samples.device == lifetimes.device).sum())
    if not n_taken:
        return None, "the device was not sampled"
    placed, is_usable = driver_usage_samples(lifetimes)
    samples = placed.take(is_usable)
    if not len(samples.moment):
        return None, f"of its {format_items(n_taken, 'sample')} none can be set against what was reserved"
    index = lifetimes.usage.index_of(event) if event >= 0 else 0
    differs = samples.reserved_bytes != reserved[index]
    nearest = int(np.lexsort((np.abs(samples.moment - index), differs))[0])
    return _usage_of(lifetimes, samples.at(nearest), not differs[nearest]), ""


def modelled_collectives(lifetimes: DeviceLifetimes) -> ModelledCollectives | None:
    """What a dry run models of communicators; None where it had none, and for a recording on a device."""
    recorded: Any = lifetimes.trace.metadata.extra.get("collectives_modelled")
    return None if recorded is None else ModelledCollectives(**recorded)


def unbacked_bytes(lifetimes: DeviceLifetimes, event: int) -> int:
    """At least so much of what was reserved after an event is not on the device, 0 where nothing speaks for it.

    PyTorch goes on counting segments whose memory a pool has unmapped, or has in another place (vLLM's sleep mode,
    managed memory). What is reserved above the device's size cannot be there, nor can what the device, sampled while
    as much was reserved, says is not in use.
    """
    reserved = lifetimes.usage.reserved_bytes
    if reserved is None or lifetimes.trace.metadata.source == "dry-run":
        return 0
    then = int(reserved[lifetimes.usage.index_of(event) if event >= 0 else 0])
    total = lifetimes.trace.metadata.device_total_bytes.get(lifetimes.device)
    most = [then] if total is None else [then, total]
    taken = lifetimes.trace.samples.take(
        (lifetimes.trace.samples.device == lifetimes.device) & (lifetimes.trace.samples.event != NONE_ID)
    )
    samples = _placed(lifetimes, taken)
    fits = (samples.reserved_bytes == then) & (samples.used_bytes != NONE_ID) & _is_quiet(lifetimes, taken)
    used: list[int] = samples.used_bytes[fits].tolist()
    return then - min(most + used)


def _placed(lifetimes: DeviceLifetimes, taken: SampleTable) -> DriverUsageSamples:
    reserved = lifetimes.usage.reserved_bytes
    index = np.clip(taken.event, lifetimes.first_event, lifetimes.end_event) - lifetimes.first_event
    then = np.full(len(index), NONE_ID, np.int64) if reserved is None else reserved[index]
    used = taken.device_used_bytes
    total_bytes = lifetimes.trace.metadata.device_total_bytes.get(lifetimes.device)
    if total_bytes is not None:  # an out-of-memory error says only what was free
        is_free_known = (used == NONE_ID) & (taken.device_free_bytes != NONE_ID)
        used = np.where(is_free_known, total_bytes - taken.device_free_bytes, used)
    process = taken.process_used_bytes
    others = np.where(process == NONE_ID, NONE_ID, taken.others_used_bytes)
    return DriverUsageSamples(index, taken.time_ns, then, used, process, others)


def _is_quiet(lifetimes: DeviceLifetimes, taken: SampleTable) -> BoolArray:
    """Whether no segment came or went around each sample: bool (samples,). An ``oom`` counts at its very moment."""
    trace, first, end = lifetimes.trace, lifetimes.first_event, lifetimes.end_event
    changes = np.sort(trace.time_ns[first:end][np.isin(trace.action[first:end], _SEGMENT_ACTIONS)])
    begin, finish = (np.searchsorted(changes, taken.time_ns + side) for side in (-_QUIET_NS, _QUIET_NS))
    ooms = lifetimes.oom_events
    is_quiet: BoolArray = (begin == finish) | np.isin(taken.event, ooms) & np.isin(taken.time_ns, trace.time_ns[ooms])
    return is_quiet


def _usage_of(lifetimes: DeviceLifetimes, sample: tuple[int, ...], is_same_reserved: bool) -> DriverUsage:
    index, time_ns, reserved_bytes, used_bytes, process_bytes, others_bytes = sample
    rows, modelled = [(PYTORCH_RESERVED, reserved_bytes)], lifetimes.trace.metadata.modelled_context_bytes
    if process_bytes != NONE_ID:
        own = process_bytes - reserved_bytes
        parts = _parts(lifetimes, time_ns, own)
        rows += [*parts.items(), (NON_PYTORCH, own - sum(parts.values()))]
    elif modelled is not None and reserved_bytes + modelled <= used_bytes:
        rows.append((CUDA_CONTEXT, modelled))
    if others_bytes != NONE_ID:
        rows.append((OTHER_PROCESSES, others_bytes))
    rows.append((UNEXPLAINED, used_bytes - sum(size for _, size in rows)))
    if sum(size for _, size in rows) != used_bytes or any(size < 0 for _, size in rows):
        raise InvariantError(f"device count {rows} does not make {used_bytes:,} bytes")
    return DriverUsage(
        event=lifetimes.usage.event_at(index),
        time_ns=None if time_ns == NONE_ID else time_ns,
        rows=tuple(LedgerRow(name, size, False) for name, size in rows),
        total_bytes=used_bytes,
        is_same_reserved=is_same_reserved,
    )


def _parts(lifetimes: DeviceLifetimes, time_ns: int, own_bytes: int) -> dict[str, int]:
    """What was told apart of a process's own bytes by a moment; nothing where it is more than there were."""
    found: dict[str, int] = {}
    recorded: Any = lifetimes.trace.metadata.extra.get("device_parts", {})
    for name, since_ns, size in recorded.get(str(lifetimes.device), ()):
        if since_ns <= time_ns:
            found[name] = found.get(name, 0) + size
    return found if sum(found.values()) <= own_bytes else {}
