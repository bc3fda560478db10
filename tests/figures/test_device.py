"""The device's own count: its series, its picture, its words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.attribution.driver_usage import (
    COLLECTIVES,
    CUDA_CONTEXT,
    NON_PYTORCH,
    OTHER_PROCESSES,
    PYTORCH_RESERVED,
    UNEXPLAINED,
)
from memscope.figures.device import device_series, driver_usage_figure
from memscope.figures.ledger import device_lines, unmeasured_device_rows
from memscope.figures.theme import DARK, LIGHT
from memscope.trace.builder import TraceBuilder
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import BlockState
from memscope.words.driver_usage import device_finding, driver_usage_origin, why_not_measured
from tests.sampled_trace import FULL, MS, MiB, counted_training_trace, sampled_trace

AFTER = {**FULL, "event": 4, "ms": 250}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(counted_training_trace())


def sampled(*samples: dict[str, Any], **metadata: Any) -> Analysis:
    return Analysis(sampled_trace(*samples, **metadata))


def named(figure: Any, name: str) -> Any:
    (trace,) = [trace for trace in figure.data if trace.name == name]
    return trace


def texts(figure: Any) -> list[str]:
    return [note.text for note in figure.layout.annotations]


@pytest.mark.parametrize("n_buckets", [3, 10_000])
def test_at_every_sample_the_bands_sum_to_what_the_device_said(analysis: Analysis, n_buckets: int) -> None:
    series = device_series(analysis.device(0), axis="time", n_buckets=n_buckets)
    used = dict(zip(series.x.tolist(), series.used_bytes.tolist(), strict=True))
    total = sum(series.bands.values())
    assert [used[x] for x in series.band_x.tolist()] == total.tolist()
    assert all((band >= 0).all() for band in series.bands.values())
    assert set(series.bands[NON_PYTORCH].tolist()) == {40 * MiB}
    assert set(series.bands[OTHER_PROCESSES].tolist()) == {60 * MiB, 90 * MiB}
    assert set(series.bands[UNEXPLAINED].tolist()) == {8 * MiB}


def test_a_sample_taken_while_segments_came_has_a_line_but_no_band(analysis: Analysis) -> None:
    series = device_series(analysis.device(0), axis="time")
    assert len(series.band_x) < len(series.x)
    assert set(series.band_x.tolist()) < set(series.x.tolist())


def test_the_highest_sample_survives_any_reduction(analysis: Analysis) -> None:
    samples = analysis.trace.samples
    few = device_series(analysis.device(0), n_buckets=2)
    assert len(few.x) < len(samples)
    assert few.highest_bytes == int(samples.device_used_bytes.max())


def test_samples_stand_on_the_clock_of_the_events(analysis: Analysis) -> None:
    series = device_series(analysis.device(0), axis="time")
    first = int(analysis.trace.time_ns[0])
    assert series.x.tolist() == pytest.approx(((analysis.trace.samples.time_ns - first) / 1e9).tolist())
    assert series.x[0] == pytest.approx(-0.020)
    by_event = device_series(analysis.device(0))
    assert by_event.x.tolist() == (analysis.trace.samples.event - 1).tolist()


def test_the_picture_begins_with_the_first_sample_and_holds_pytorchs_lines(analysis: Analysis) -> None:
    figure = driver_usage_figure(analysis.device(0), LIGHT, axis="time")
    low, high = figure.layout.xaxis.range
    last_s = float(analysis.trace.samples.time_ns[-1] - analysis.trace.time_ns[0]) / 1e9
    assert (low, high) == (pytest.approx(-0.020), pytest.approx(last_s))
    reserved = named(figure, "reserved")
    assert (reserved.x[0], reserved.x[-1]) == (low, high)
    assert reserved.y[0] == 0
    assert reserved.y[-1] == reserved.y[-2]


def test_a_window_keeps_the_sample_before_it(analysis: Analysis) -> None:
    series = device_series(analysis.device(0), axis="time", window=(0.1, 0.12))
    assert series.x[0] < 0.1 <= series.x[1]
    assert len(series.x) < len(analysis.trace.samples)
    assert series.span == pytest.approx((-0.020, device_series(analysis.device(0), axis="time").x[-1]))


def test_lines_are_named_and_the_moment_is_the_first_shape(analysis: Analysis) -> None:
    figure = driver_usage_figure(analysis.device(0), DARK, moment=33)
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].visible) == (33, True)
    found = texts(figure)
    assert {"device used", "this process", "other processes", "non-PyTorch"} <= set(found)
    assert any("capacity 300.0 MiB" in text for text in found)
    assert named(figure, "unexplained").fillpattern.shape == "/"
    assert named(figure, "device used").y[-1] == pytest.approx(200.0)


def test_what_was_not_measured_has_no_line_and_is_no_zero() -> None:
    figure = driver_usage_figure(Analysis(counted_training_trace(with_process=False)).device(0), LIGHT)
    names = [trace.name for trace in figure.data]
    assert "device used" in names
    assert "this process" not in names
    assert "other processes" not in names
    assert "non-PyTorch" not in names
    gap = {"event": 2, "ms": 150}
    figure = driver_usage_figure(sampled(FULL, gap, AFTER).device(0), LIGHT, axis="time")
    used = named(figure, "device used").y
    assert np.isnan(used[1])
    assert used[0] == used[2] == 900


def test_few_samples_are_dots() -> None:
    assert named(driver_usage_figure(sampled(AFTER).device(0), LIGHT), "device used").mode == "lines+markers"


def test_without_samples_pytorchs_lines_are_drawn_alone() -> None:
    figure = driver_usage_figure(sampled().device(0), LIGHT)
    assert [trace.name for trace in figure.data if trace.name] == ["allocated", "reserved", "out of memory"]


def test_without_events_the_picture_says_so() -> None:
    builder = TraceBuilder()
    segment = builder.add_segment(address=1 << 30, size_bytes=2 * MiB, is_large=False)
    builder.add_block(
        segment, address=1 << 30, size_bytes=2 * MiB, requested_bytes=MiB, state=BlockState.ACTIVE_ALLOCATED
    )
    figure = driver_usage_figure(Analysis(builder.build(TraceMetadata(source="cuda"))).device(0), LIGHT)
    assert "no events were recorded" in texts(figure)[0]


def test_the_lines_of_the_count_sum_to_it(analysis: Analysis) -> None:
    count = analysis.peak(0).ledger.driver_usage
    assert count is not None
    lines = device_lines(count)
    assert sum(line.bytes for line in lines) == count.total_bytes
    assert [line.name for line in lines] == [
        PYTORCH_RESERVED,
        CUDA_CONTEXT,
        NON_PYTORCH,
        OTHER_PROCESSES,
        UNEXPLAINED,
    ]
    assert unmeasured_device_rows(count) == []


def test_rows_that_nothing_measured_are_named() -> None:
    alone = sampled({**AFTER, "others_used_bytes": -1}).at(3, 0).ledger.driver_usage
    assert unmeasured_device_rows(alone) == [OTHER_PROCESSES]
    assert unmeasured_device_rows(None) == [NON_PYTORCH, OTHER_PROCESSES]


def test_the_finding_names_who_holds_most() -> None:
    def finding(event: int = 3, extra: dict[str, Any] | None = None, **sizes: int) -> str:
        sample = {**AFTER, **{f"{name}_used_bytes": size for name, size in sizes.items()}}
        return device_finding(sampled(sample, extra=extra or {}).at(event, 0))

    at = "at event 3"
    assert finding(others=600 * MiB, device=1200 * MiB) == f"Other processes hold 600.0 MiB of the device {at}"
    assert finding(device=5000 * MiB) == f"4.0 GiB of the device are used beyond PyTorch {at}; nothing says by whom"
    untold = finding(process=-1, others=-1)
    assert untold.endswith(
        f"878.0 MiB of the device are used beyond PyTorch {at}; this process and others were not told apart"
    )
    parts = {"device_parts": {"0": [[CUDA_CONTEXT, 50 * MS, 400 * MiB], [COLLECTIVES, 60 * MS, 50 * MiB]]}}
    agrees = finding(extra=parts, others=0, device=502 * MiB)
    own = "CUDA context 400.0 MiB, collectives 50.0 MiB, non-PyTorch 28.0 MiB"
    assert agrees == f"NVML and PyTorch agree within 480.0 MiB {at}: {own}"
    large = finding(others=0, process=4000 * MiB, device=4000 * MiB)
    assert large == f"This process holds 3.9 GiB beyond PyTorch {at}: non-PyTorch 3.9 GiB"
    exact = finding(others=0, process=22 * MiB, device=22 * MiB)
    assert exact == f"The device holds nothing but what PyTorch reserved {at}"
    assert device_finding(sampled().at(3, 0)) == "What the device holds beyond PyTorch is not measured"


def test_the_origin_says_which_sample_and_how_many_were_usable() -> None:
    moment = sampled(AFTER).at(3, 0)
    count = moment.ledger.driver_usage
    assert count is not None
    assert driver_usage_origin(moment, count) == "Sampled at event 3, one of 1 sample"
    moment = sampled(FULL, {**FULL, "ms": 199}).at(3, 0)
    count = moment.ledger.driver_usage
    assert count is not None
    words = driver_usage_origin(moment, count)
    assert "one of 2 samples, of which 1 were taken while no segment came or went" in words
    assert words.endswith("PyTorch had reserved a different size than at the chosen moment")


def test_what_to_do_depends_on_why_nothing_was_counted() -> None:
    assert "record the script on a GPU: memscope run SCRIPT" in why_not_measured(sampled(source="dry-run").at(3, 0))
    assert "memscope run samples" in why_not_measured(sampled(source="torch-snapshot").at(3, 0))
    assert "memscope doctor" in why_not_measured(sampled().at(3, 0))
    contradictory = why_not_measured(sampled({**AFTER, "process_used_bytes": MiB}).at(3, 0))
    assert contradictory.startswith("Of its 1 sample none can be set against what was reserved.")
    assert "memscope run" not in contradictory
