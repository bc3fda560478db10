"""Memory that lies free on one stream while another takes more: PyTorch never moves it from stream to stream."""

from __future__ import annotations

import dataclasses

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, sites_by_bytes
from memscope.findings.returned import Returned
from memscope.fragmentation.series import GroupSeries
from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.caching.engine import replay_caching
from memscope.replay.requests import Requests, requests_of
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_fraction, format_handle

MIN_IDLE_BYTES = 64 << 20
WARNING_SAVED_FRAC = 0.05
SEVERE_SAVED_FRAC = 0.20
"""Share of the highest reserved memory that one stream for everything would not have taken."""


def find_idle_streams(device: Device, _returned: Returned) -> list[Finding]:
    """Memory idle on another stream when reserved memory was highest, if one stream for all would have taken less.

    That it would is not assumed: the requests are replayed with all of them on one stream.
    """
    series = device.fragmentation_series
    if series is None:
        return []
    reserved = series.overall.reserved_bytes
    row = int(np.argmax(reserved))
    event, highest = int(series.overall.event[row]), int(reserved[row])
    idle = _idle_bytes_by_stream(series.groups, event)
    least = max(MIN_IDLE_BYTES, int(WARNING_SAVED_FRAC * highest))
    if len(idle) < 2 or sum(idle.values()) < least:
        return []
    saved = _saved_by_one_stream(device.lifetimes)
    if saved < least:
        return []
    most = max(idle, key=lambda stream: idle[stream])
    rows = _rows_on_streams(device, event, [stream for stream in idle if idle[stream]])
    return [
        Finding(
            kind="idle-streams",
            severity=Severity.SEVERE if saved >= SEVERE_SAVED_FRAC * highest else Severity.WARNING,
            device=device.index,
            title=(
                f"{format_bytes(sum(idle.values()))} idle on another stream: one stream for all would reserve "
                f"{format_bytes(saved)} less, {format_fraction(saved / highest)} of the peak"
            ),
            text=(
                "Memory that is free on one stream serves no request of another stream: "
                f"{format_bytes(idle[most])} of it was on stream {format_handle(most)}."
            ),
            bytes=saved,
            event=event,
            view="map",
            rows=largest_rows(device, rows),
            sites=sites_by_bytes(device, rows, device.allocations.block_bytes[rows]),
            evidence={
                "n_streams": len(idle),
                "idle_bytes": sum(idle.values()),
                "most_idle_stream": most,
                "most_idle_bytes": idle[most],
                "reserved_bytes": highest,
                "saved_bytes": saved,
            },
            fix=(
                "run that stream's work on the stream that does the rest, or free its tensors first and call "
                "torch.cuda.empty_cache()"
            ),
            returned_bytes=saved,
        )
    ]


def _idle_bytes_by_stream(groups: tuple[GroupSeries, ...], event: int) -> dict[int, int]:
    """Free bytes of the default pool after an event, by raw stream handle."""
    idle: dict[int, int] = {}
    for group in groups:
        if group.stream is None or group.pool not in (None, (0, 0)):
            continue
        row = int(np.searchsorted(group.table.event, event, side="right")) - 1
        if row >= 0:
            free = int(group.table.reserved_bytes[row] - group.table.active_bytes[row])
            idle[group.stream] = idle.get(group.stream, 0) + free
    return idle


def _saved_by_one_stream(lifetimes: DeviceLifetimes) -> int:
    """Bytes by which reserved memory peaks lower if the same requests are all made on one stream, by replay."""
    requests = requests_of(lifetimes)
    apart = replay_caching(lifetimes, requests=requests)
    together = replay_caching(lifetimes, requests=_on_one_stream(requests))
    if apart.oom is not None or together.oom is not None:
        return 0
    return apart.peak_reserved_bytes - together.peak_reserved_bytes


def _on_one_stream(requests: Requests) -> Requests:
    """The same requests, each in its pool, all on the stream of the first."""
    pools: dict[int, int] = {}
    of_pair = np.array([pools.setdefault(pool, len(pools)) for pool, _ in requests.pairs], np.int64)
    stream = requests.pairs[0][1]
    return dataclasses.replace(requests, pair=of_pair[requests.pair], pairs=[(pool, stream) for pool in pools])


def _rows_on_streams(device: Device, event: int, streams: list[int]) -> Int64Array:
    """Allocations in use after an event on any of some streams but the one with most of them."""
    rows = device.at(event).in_use_rows
    handles = device.trace.stream_handles[device.allocations.stream_id[rows]]
    distinct, of_stream = np.unique(handles, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, of_stream.reshape(-1), device.allocations.block_bytes[rows])
    held = dict(zip(distinct.tolist(), sums.tolist(), strict=True))
    main = max(streams, key=lambda stream: held.get(stream, 0))
    return rows[np.isin(handles, [stream for stream in streams if stream != main])]
