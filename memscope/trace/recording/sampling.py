"""The device's own count, sampled during a recording: its file in a recording's folder, its place in a trace."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np

from memscope.errors import InputFileError, first_line
from memscope.trace.recording.folder import require_own
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, SampleTable
from memscope.trace.trace import Trace

SAMPLES_NAME = "samples.npy"
COUNTED_COLUMNS = ("time_ns", "device_free_bytes", "device_used_bytes", "process_used_bytes", "others_used_bytes")
"""What a sample is made of, beside its device: int64 each, −1 where it was not measured."""
_FILE_COLUMNS = ("device", *COUNTED_COLUMNS)


def write_samples(folder: Path, samples: Mapping[str, Int64Array]) -> None:
    """Write the samples so far into a recording's folder, whole or not at all."""
    partial = folder / (SAMPLES_NAME + ".partial")
    with partial.open("wb") as file:
        np.save(file, np.stack([samples[name] for name in _FILE_COLUMNS]))
    partial.replace(folder / SAMPLES_NAME)


def read_samples(folder: Path) -> dict[str, Int64Array]:
    """Samples of a recording's folder by column, empty where there is no such file.

    Raises
    ------
    InputFileError
        If the file is not what was written.
    """
    path = folder / SAMPLES_NAME
    if not path.exists():
        return {name: np.empty(0, np.int64) for name in _FILE_COLUMNS}
    try:
        require_own(path)
        # Mapped, so that a shape that the file has not is refused before memory is asked for.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 would have written
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (TokenError, SyntaxError) as error:
        raise InputFileError(path, "cannot be read: its header is damaged") from error
    except (OSError, ValueError, EOFError, OverflowError, TypeError) as error:
        raise InputFileError(path, f"cannot be read: {first_line(error)}") from error
    if not isinstance(rows, np.ndarray) or rows.dtype != np.int64 or rows.shape[:-1] != (len(_FILE_COLUMNS),):
        raise InputFileError(path, "is not a table of samples")
    rows = np.array(rows)
    device = rows[_FILE_COLUMNS.index("device")]
    if rows.size and not 0 <= int(device.min()) <= int(device.max()) <= np.iinfo(np.int16).max:
        raise InputFileError(path, "has samples of devices that there cannot be")
    return dict(zip(_FILE_COLUMNS, rows, strict=True))


def placed_samples(samples: Mapping[str, Int64Array], trace: Trace) -> SampleTable:
    """Give samples their places among a trace's events by time, and add the trace's own samples.

    A sample stands before the first event of its device that is later. Ordered by event, then time.

    Parameters
    ----------
    samples
        What :meth:`UsageSampler.samples` returned.
    """
    event = np.full(len(samples["time_ns"]), NONE_ID, np.int64)
    for device in np.unique(samples["device"]):
        rows = samples["device"] == device
        first, end = trace.event_range(int(device))
        times = np.maximum.accumulate(trace.time_ns[first:end])
        event[rows] = first + np.searchsorted(times, samples["time_ns"][rows], side="right")
    own = trace.samples.columns()
    added = {**samples, "event": event}
    joined = {name: np.concatenate([own[name], added[name].astype(own[name].dtype)]) for name in SampleTable.COLUMNS}
    return SampleTable.from_columns(joined).take(np.lexsort((joined["time_ns"], joined["event"])))
