"""Sampling what drivers say is used while something is recorded, on a thread of its own."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import Self

from memscope.capture.driver_usage._reader import UsageReader, UsageReading, open_nvml
from memscope.errors import UsageError
from memscope.trace.recording.sampling import COUNTED_COLUMNS
from memscope.trace.tables import Int64Array

DEFAULT_INTERVAL_S = 0.1
DEFAULT_MAX_SAMPLES = 100_000
_UNCHANGED_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SamplerCost:
    """What sampling took. ``read_ns`` is the time spent asking, on the sampler's own thread."""

    n_reads: int
    read_ns: int
    longest_ns: int

    @property
    def mean_ns(self) -> float | None:
        """Time of one reading, None before the first."""
        return self.read_ns / self.n_reads if self.n_reads else None


class _Kept:
    """The samples of one device: every change, one a second where nothing changes, and never more than a limit.

    At the limit every second one is dropped, never the highest, and from then on they are kept half as densely.
    """

    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self._rows = [array("q") for _ in COUNTED_COLUMNS]
        self._min_gap_ns = 0
        self._last: UsageReading | None = None
        self._highest = 0

    def __len__(self) -> int:
        return len(self._rows[0])

    def add(self, time_ns: int, reading: UsageReading, *, is_forced: bool) -> None:
        gap_ns = time_ns - self._rows[0][-1] if len(self) else _UNCHANGED_NS
        wanted_ns = self._min_gap_ns if reading != self._last else max(_UNCHANGED_NS, self._min_gap_ns)
        is_highest = self._last is not None and reading.device_used_bytes > self._rows[2][self._highest]
        if not (is_forced or is_highest or gap_ns >= wanted_ns):
            return
        if len(self) >= self._max_samples:
            self._thin_out()
        self._last = reading
        values = (
            time_ns,
            reading.device_free_bytes,
            reading.device_used_bytes,
            reading.process_used_bytes,
            reading.others_used_bytes,
        )
        for row, value in zip(self._rows, values, strict=True):
            row.append(value)
        if is_highest:
            self._highest = len(self) - 1

    def _thin_out(self) -> None:
        times = np.array(self._rows[0])
        self._min_gap_ns = 2 * max(self._min_gap_ns, int(np.median(np.diff(times))))
        kept = sorted({*range(0, len(self), 2), self._highest, len(self) - 1})
        self._rows = [array("q", [row[i] for i in kept]) for row in self._rows]
        self._highest = kept.index(self._highest)

    def arrays(self) -> list[Int64Array]:
        return [np.array(row, np.int64) for row in self._rows]


class UsageSampler:
    """Samples the driver usage of devices from :meth:`start` to :meth:`stop`, at both and at every interval between.

    Parameters
    ----------
    devices
        The devices by the index that PyTorch gives them.
    interval_s
        Seconds between two readings.
    max_samples
        Samples kept of each device at most: 40 bytes each.

    Raises
    ------
    UsageError
        If the interval is not positive, or fewer than 4 samples may be kept.
    """

    def __init__(
        self,
        devices: Sequence[int],
        interval_s: float = DEFAULT_INTERVAL_S,
        *,
        max_samples: int = DEFAULT_MAX_SAMPLES,
    ) -> None:
        if not interval_s > 0:
            raise UsageError(f"a sampling interval of {interval_s} s cannot be used: give more than 0")
        if max_samples < 4:
            raise UsageError(f"max_samples={max_samples} is too few: give 4 or more")
        self._interval_s = interval_s
        self._kept = {device: _Kept(max_samples) for device in devices}
        self._readers: dict[int, UsageReader] = {}
        self._reasons: list[str] = []
        self._is_nvml_open = False
        self._reading = threading.RLock()  # a signal's handler may come in between, on the same thread
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._n_reads = self._read_ns = self._longest_ns = 0

    @property
    def readers(self) -> Mapping[int, UsageReader]:
        """What reads each device, once started."""
        return self._readers

    @property
    def cost(self) -> SamplerCost:
        """What sampling has taken so far."""
        return SamplerCost(self._n_reads, self._read_ns, self._longest_ns)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why something is not measured, or is measured in the second-best way; a sentence each."""
        return (*self._reasons, *(text for reader in self._readers.values() for text in reader.reasons))

    def start(self) -> Self:
        """Find the devices, take the first sample and begin; CUDA must have been initialised.

        A device without an answer is sampled as "not measured": this never fails.
        """
        nvml, reason = open_nvml()
        self._is_nvml_open = nvml is not None
        self._reasons += [reason] if reason else []
        self._readers = {device: UsageReader(device, nvml) for device in self._kept}
        self.sample_now()
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, name="memscope-device-sampler", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take the last sample and end; a second call does nothing."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        self.sample_now()
        self._close_nvml()

    def sample_now(self) -> None:
        """Take a sample that is kept in any case."""
        self._sample(is_forced=True)

    def samples(self) -> dict[str, Int64Array]:
        """The samples by column, ordered by time: int64 each, without a place among the trace's events yet."""
        with self._reading:
            devices = [np.full(len(kept), device, np.int64) for device, kept in self._kept.items()]
            parts = [kept.arrays() for kept in self._kept.values()]
        columns = {
            name: np.concatenate([part[i] for part in parts]) if parts else np.empty(0, np.int64)
            for i, name in enumerate(COUNTED_COLUMNS)
        }
        columns["device"] = np.concatenate(devices) if devices else np.empty(0, np.int64)
        order = np.argsort(columns["time_ns"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._sample(is_forced=False)

    def _sample(self, *, is_forced: bool) -> None:
        with self._reading:
            for device, reader in self._readers.items():
                began_ns, began = time.time_ns(), time.perf_counter_ns()
                reading = reader.read()
                took_ns = time.perf_counter_ns() - began
                self._n_reads += 1
                self._read_ns += took_ns
                self._longest_ns = max(self._longest_ns, took_ns)
                self._kept[device].add(began_ns + took_ns // 2, reading, is_forced=is_forced)

    def _close_nvml(self) -> None:
        if not self._is_nvml_open:
            return
        import pynvml

        self._is_nvml_open = False
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            self._reasons.append(f"NVML did not shut down: {error}")
