"""Fragmentation as pictures: the layers are the ledger's rows at every point, and the histogram closes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import plotly.graph_objects as go
import pytest

from memscope.analysis import Analysis
from memscope.attribution.ledger import FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE
from memscope.figures.fragmentation import (
    ACTIVE,
    MAX_GROUPS,
    drawn_holes,
    fragmentation_data,
    fragmentation_figure,
    holes_figure,
    holes_finding,
)
from memscope.figures.theme import DARK, LIGHT, THEMES, Theme
from memscope.fragmentation.holes import Holes, holes_of
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes
from memscope.words.headlines import fragmentation_finding
from tests.training_trace import MiB, training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def unmeasured() -> Analysis:
    """Segment events were not recorded, so that the layout is not known."""
    trace = training_trace()
    return Analysis(dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, has_segment_events=False)))


@pytest.mark.parametrize("n_buckets", [2, 10_000])
@pytest.mark.parametrize("axis", ["event", "time"])
def test_the_layers_are_the_ledger_at_every_point(analysis: Analysis, n_buckets: int, axis: str) -> None:
    data = fragmentation_data(analysis.device(0), axis=axis, n_buckets=n_buckets)
    assert data is not None
    for position, event in enumerate(data.event.tolist()):
        moment = analysis.at(event, 0)
        for name in (FREE_PINNED, FREE_PRIVATE_POOLS, FREE_RELEASABLE):
            assert data.layers[name][position] == moment.ledger[name]
        assert data.layers[ACTIVE][position] == moment.active_bytes
        assert data.reserved_bytes[position] == moment.reserved_bytes
    assert np.array_equal(sum(data.layers.values()), data.reserved_bytes)


def test_peaks_and_the_end_survive_any_reduction(analysis: Analysis) -> None:
    series = analysis.device(0).fragmentation_series
    data = fragmentation_data(analysis.device(0), n_buckets=1)
    assert data is not None
    assert series is not None
    assert len(data.x) < len(series.overall)
    assert data.reserved_bytes.max() == series.overall.reserved_bytes.max()
    assert data.cached_request_bytes.min() == series.largest_cached_request_bytes().min()
    assert data.event[-1] == analysis.device(0).lifetimes.last_event
    assert data.event[0] == NONE_ID


def test_a_window_draws_only_what_lies_in_it(analysis: Analysis) -> None:
    whole, part = fragmentation_data(analysis.device(0)), fragmentation_data(analysis.device(0), window=(20.0, 30.0))
    assert whole is not None
    assert part is not None
    assert len(part.x) < len(whole.x)
    assert part.x[0] <= 20
    assert part.x[-1] >= 30


def test_requests_that_failed_are_marked_where_they_did(analysis: Analysis) -> None:
    data = fragmentation_data(analysis.device(0))
    (oom,) = analysis.device(0).oom_events
    assert data is not None
    assert data.oom_x.tolist() == [float(oom)]
    assert data.oom_bytes.tolist() == [analysis.at(int(oom), 0).reserved_bytes]


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_the_picture_has_the_moment_first_and_names_the_worst(analysis: Analysis, theme: Theme) -> None:
    summary = analysis.device(0).fragmentation_over_time
    assert summary is not None
    layout = json.loads(fragmentation_figure(analysis.device(0), theme, moment=12).to_json())["layout"]
    assert layout["shapes"][0]["x0"] == 12
    texts = [note["text"] for note in layout["annotations"]]
    assert f"<b>worst: {format_bytes(summary.worst[0].pinned_bytes)} pinned</b>" in texts
    assert any(text.startswith("largest request that would succeed without the driver") for text in texts)


def test_the_line_with_the_driver_needs_the_devices_memory() -> None:
    names = {total: [t.name for t in _figure(total).data] for total in (64 * MiB, None)}
    assert "largest request with the driver" in names[64 * MiB]
    assert "largest request with the driver" not in names[None]


def _figure(total_bytes: int | None) -> go.Figure:
    return fragmentation_figure(Analysis(training_trace(total_bytes=total_bytes, with_oom=False)).device(0), LIGHT)


def test_what_was_not_measured_is_said() -> None:
    moment = unmeasured().peak(0)
    figure = fragmentation_figure(moment.device, DARK)
    assert not figure.data
    assert "not measured" in figure.layout.annotations[0].text
    assert "not measured" in fragmentation_finding(moment)


def test_the_finding_tells_pinned_memory_from_little_of_it(analysis: Analysis) -> None:
    found = {fragmentation_finding(analysis.at(event, 0)).split(" at ")[0] for event in range(-1, 100)}
    assert any("free but pinned by live blocks" in text for text in found)
    assert any("reserved is in use" in text for text in found)
    assert fragmentation_finding(analysis.at(-1, 0)).startswith("Nothing is reserved")


def test_the_histogram_holds_every_free_byte(analysis: Analysis) -> None:
    for event in (30, 60, 90):
        moment = analysis.at(event, 0)
        holes = holes_of(analysis.trace, moment.state)
        figure = holes_figure(holes, LIGHT)
        unit = {"KiB": 1 << 10, "MiB": MiB}[figure.layout.yaxis.ticktext[-1].split()[1]]
        drawn = sum(round(value * unit) for trace in figure.data for value in trace.y)
        assert drawn == sum(one.total_bytes for one in holes)
        assert format_bytes(sum(one.total_bytes for one in holes)) in holes_finding(holes)


def test_a_hole_stands_between_the_powers_of_two_around_its_size() -> None:
    sizes = np.array([2 * MiB, 2 * MiB - 512, 512], np.int64)
    (bars,) = holes_figure([Holes((0, 0), 0, "large", sizes)], LIGHT).data
    assert list(bars.x) == [9.5, 20.5, 21.5]
    assert bars.customdata[1] == "1 MiB to 2 MiB: 1 free block, 2.0 MiB"


@pytest.mark.parametrize(("n", "n_drawn"), [(MAX_GROUPS, MAX_GROUPS), (MAX_GROUPS + 1, MAX_GROUPS + 1), (9, 6)])
def test_many_pools_are_drawn_as_few_without_losing_a_byte(n: int, n_drawn: int) -> None:
    holes = [Holes((0, i), 0, "large", np.array([MiB * (n - i)], np.int64)) for i in range(n)]
    drawn = drawn_holes(holes)
    assert len(drawn) == n_drawn
    assert sum(int(sizes.sum()) for _, sizes in drawn) == sum(one.total_bytes for one in holes)


def test_no_holes_are_said_to_be_none() -> None:
    assert holes_finding(()) == "No free blocks at this moment"
    assert "free" in holes_figure((), LIGHT).layout.annotations[0].text
