"""Samples of the device's own count: read back as they were written, and placed among the events by time."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from memscope.errors import InputFileError
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.recording.sampling import SAMPLES_NAME, placed_samples, read_samples, write_samples
from memscope.trace.schema import NONE_ID, Action


def test_samples_are_placed_before_the_next_event_of_their_device() -> None:
    builder = TraceBuilder()
    for device, time_ns in ((0, 10), (0, 20), (1, 15)):
        builder.add_event(Action.ALLOC, address=512, size_bytes=8, device=device, time_ns=time_ns)
    builder.add_sample(time_ns=15, device=1, device_free_bytes=7)
    trace = builder.build(TraceMetadata(source="cuda"))
    columns = {name: np.zeros(5, np.int64) for name in ("device_free_bytes", "device_used_bytes")}
    columns |= {name: np.full(5, NONE_ID) for name in ("process_used_bytes", "others_used_bytes")}
    columns |= {"time_ns": np.array([5, 10, 14, 15, 30]), "device": np.array([0, 0, 1, 0, 0])}
    placed = placed_samples(columns, trace)
    rows = list(zip(placed.event.tolist(), placed.device.tolist(), placed.time_ns.tolist(), strict=True))
    assert rows == [(0, 0, 5), (1, 0, 10), (1, 0, 15), (2, 1, 14), (2, 0, 30), (3, 1, 15)]


def test_samples_are_read_back_and_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    none = read_samples(tmp_path)
    assert len(none["time_ns"]) == 0
    samples = {name: np.arange(3) + 10 * position for position, name in enumerate(none)}
    write_samples(tmp_path, samples)
    read = read_samples(tmp_path)
    assert {name: column.tolist() for name, column in read.items()} == {n: c.tolist() for n, c in samples.items()}
    assert [path.name for path in tmp_path.iterdir()] == [SAMPLES_NAME]
    np.save(tmp_path / SAMPLES_NAME, np.zeros((2, 3), np.int64))
    with pytest.raises(InputFileError, match="is not a table of samples"):
        read_samples(tmp_path)
    (tmp_path / SAMPLES_NAME).write_bytes(b"cut")
    with pytest.raises(InputFileError, match="cannot be read"):
        read_samples(tmp_path)


@pytest.mark.parametrize("shape", ["(6, 10000000000000)", "(6, -1)", "()", "(3, 2)", "(6, 10**30)"])
def test_a_shape_that_the_file_has_not_is_refused_before_memory_is_asked_for(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(96)
    (tmp_path / SAMPLES_NAME).write_bytes(content)
    with pytest.raises(InputFileError) as caught:
        read_samples(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_header_that_was_changed_is_refused_in_one_line_whatever_it_is_taken_for(tmp_path: Path) -> None:
    path, rng = tmp_path / SAMPLES_NAME, random.Random(1)
    write_samples(tmp_path, {name: np.zeros(3, np.int64) for name in read_samples(tmp_path)})
    whole = path.read_bytes()
    reasons = set()
    for _ in range(1000):
        changed = bytearray(whole)
        at = rng.randrange(128)
        others = [rng.choice(b"([{}])'\"\\\n0L,:x") for _ in range(rng.randrange(4))]
        changed[at : at + rng.choice((0, 1, 20))] = bytes(others)
        path.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                read_samples(tmp_path)
            except InputFileError as error:
                reasons.add(str(error))
    assert not any("\n" in reason for reason in reasons)
    assert f"{path}: cannot be read: its header is damaged" in reasons


def test_samples_of_devices_that_there_cannot_be_are_refused(tmp_path: Path) -> None:
    rows = np.zeros((6, 2), np.int64)
    for device in (-1, 1 << 20):
        rows[0] = device
        np.save(tmp_path / SAMPLES_NAME, rows)
        with pytest.raises(InputFileError, match="devices that there cannot be"):
            read_samples(tmp_path)
