"""The device view: rows that sum, the lines over the run, and why nothing was measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import device

from memscope.trace.container import write_container
from memscope.units import format_bytes
from tests.dashboard.pages import moment_data, subject_of, text_of
from tests.sampled_trace import counted_training_trace
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TraceStore]:
    folder = tmp_path_factory.mktemp("sampled")
    store = TraceStore(
        [
            write_container(counted_training_trace(), folder / "all.memscope"),
            write_container(counted_training_trace(with_process=False), folder / "whole.memscope"),
            write_container(training_trace(), folder / "none.memscope"),
        ]
    )
    yield store
    store.close()


def test_the_rows_of_the_moment_are_those_of_the_library(sampled: TraceStore) -> None:
    data = moment_data(sampled, "all.memscope")
    title, note, panel = device.update(sampled, data, "light", "event")
    count = Query.from_data(data).moment(sampled).ledger.driver_usage
    assert count is not None
    assert text_of(title).startswith("Other processes hold 90.0 MiB of the device at step 3")
    assert "solid line: reserved" in note
    words = text_of(panel)
    for row in count.rows:
        assert format_bytes(row.bytes) in words
    assert f"device used{format_bytes(count.total_bytes)}the sum, to the byte" in words
    assert "not measured" not in words
    assert "of which 76 were taken while no segment came or went" in words


def test_another_moment_has_another_count(sampled: TraceStore) -> None:
    data = moment_data(sampled, "all.memscope") | {"event": 60}
    assert "Other processes hold 60.0 MiB" in text_of(device.update(sampled, data, "dark", "event")[0])


def test_what_the_device_did_not_tell_is_said_to_be_not_measured(sampled: TraceStore) -> None:
    title, _, panel = device.update(sampled, moment_data(sampled, "whole.memscope"), "light", "event")
    assert "this process and others were not told apart" in text_of(title)
    words = text_of(panel)
    assert "non-PyTorchnot measured" in words
    assert "other processesnot measured" in words


def test_without_samples_the_view_says_why_and_what_to_do(sampled: TraceStore) -> None:
    title, _, panel = device.update(sampled, moment_data(sampled, "none.memscope"), "light", "event")
    assert text_of(title) == "What the device holds beyond PyTorch is not measured"
    words = text_of(panel)
    assert words.startswith("The device was not sampled. ")
    assert "memscope run" in words
    assert "device usednot measured" in words


def test_the_picture_zooms_into_the_window_of_its_own_trace_only(sampled: TraceStore) -> None:
    data = moment_data(sampled, "all.memscope")
    window = {"axis": "time", "trace": "all.memscope", "device": 0, "low": 0.1, "high": 0.15}
    zoomed, reset = device.draw(sampled, subject_of(data), "light", "time", window, data)
    assert list(zoomed.layout.xaxis.range) == [0.1, 0.15]
    assert reset == {"visibility": "visible"}
    whole, reset = device.draw(sampled, subject_of(data), "light", "time", window | {"trace": "x"}, data)
    assert whole.layout.xaxis.range[0] < 0
    assert reset == {"visibility": "hidden"}
