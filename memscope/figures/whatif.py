"""What techniques make of a run: its memory before and after, over each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from memscope.figures.theme import ByteAxis, Theme, bare_axis, byte_axis, empty_figure, extreme_indices, quiet_axis
from memscope.figures.timeline import capacity_line, capacity_note
from memscope.techniques.course import Course
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes, format_count

Measure = Literal["reserved", "allocated"]
PICTURE_PX = 300
_N_BUCKETS = 240
_HEADROOM = 1.14
_CAPACITY_IN_SIGHT = 1.5
_AFTER = {"light": "#4834B0", "dark": "#9C90F0"}
"""Of what the changed run has; no category has it."""
_MARGIN_PX = {"l": 72, "r": 16, "t": 8, "b": 34}


@dataclass(frozen=True, slots=True)
class DrawnCourse:
    """A course reduced to what a picture can show: float64 and int64 (m,); every peak of both measures is kept."""

    at: npt.NDArray[np.float64]
    allocated_bytes: Int64Array
    reserved_bytes: Int64Array

    def bytes_of(self, measure: Measure) -> Int64Array:
        """The values of a measure."""
        return self.reserved_bytes if measure == "reserved" else self.allocated_bytes


def reduced_course(course: Course) -> DrawnCourse:
    """A course at about a thousand moments."""
    series = [course.reserved_bytes, course.allocated_bytes]
    keep = [int(np.argmax(values)) for values in series] + [len(course.at) - 1]
    chosen = extreme_indices(series, 0, len(course.at), _N_BUCKETS, keep)
    return DrawnCourse(course.at[chosen], course.allocated_bytes[chosen], course.reserved_bytes[chosen])


def before_after_figure(
    before: DrawnCourse, after: DrawnCourse, theme: Theme, measure: Measure, capacity_bytes: int | None = None
) -> go.Figure:
    """Draw a run as it was as a quiet area, and what techniques make of it as a strong line over it.

    Parameters
    ----------
    capacity_bytes
        What PyTorch could have of a card; a line where it is near the curves, else a word.
    """
    peaks = [int(course.bytes_of(measure).max(initial=0)) for course in (before, after)]
    highest = max(1, *peaks)
    is_in_sight = capacity_bytes is not None and capacity_bytes <= _CAPACITY_IN_SIGHT * highest
    top = max(highest, capacity_bytes or 0) if is_in_sight else highest
    scale = byte_axis(int(top * 1.06))
    figure = empty_figure(
        theme,
        PICTURE_PX,
        margin=_MARGIN_PX,
        hovermode="x unified",
        xaxis=_events_axis(float(max(before.at[-1], after.at[-1])), theme),
        yaxis=quiet_axis(
            theme,
            showgrid=True,
            range=[0, top * _HEADROOM / scale.unit_bytes],
            tickmode="array",
            tickvals=scale.tick_values,
            ticktext=scale.tick_texts,
            fixedrange=True,
        ),
    )
    _add(figure, "before", before, measure, scale, {"width": 1.5, "color": theme.muted}, theme.grid)
    _add(figure, "after", after, measure, scale, {"width": 2, "color": _AFTER[theme.name]}, None)
    notes = [
        _peak_note("before", before, measure, scale, theme.muted, theme.surface),
        _peak_note("after", after, measure, scale, _AFTER[theme.name], theme.surface),
    ]
    _part_notes(notes, peaks, highest)
    shapes = []
    if capacity_bytes is not None:
        notes.append(capacity_note(capacity_bytes, is_in_sight, theme, scale))
        shapes = [capacity_line(capacity_bytes, theme, scale)] if is_in_sight else []
    return figure.update_layout(shapes=shapes, annotations=notes)


def before_after_words(before: DrawnCourse, after: DrawnCourse, measure: Measure) -> str:
    """What the picture shows, for those who cannot see it."""
    peaks = [format_bytes(int(course.bytes_of(measure).max(initial=0))) for course in (before, after)]
    return f"{measure.capitalize()} memory over the run, at most {peaks[0]} before and {peaks[1]} after."


def _events_axis(last: float, theme: Theme) -> dict[str, Any]:
    if last <= 0:
        return bare_axis()
    return quiet_axis(theme, range=[0, last], tickformat=",d", nticks=8, fixedrange=True, hoverformat=",.0f")


def _add(
    figure: go.Figure,
    name: str,
    course: DrawnCourse,
    measure: Measure,
    scale: ByteAxis,
    line: dict[str, Any],
    fill: str | None,
) -> None:
    values = course.bytes_of(measure)
    texts = [f"{format_bytes(n)} · {format_count(n)} bytes" for n in values.tolist()]
    figure.add_scatter(
        x=course.at,
        y=values.astype(np.float64) / scale.unit_bytes,
        customdata=texts,
        name=name,
        mode="lines",
        line=line | {"shape": "hv"},
        fill=None if fill is None else "tozeroy",
        fillcolor=fill,
        hovertemplate=f"{name} %{{customdata}}<extra></extra>",
    )


def _peak_note(
    name: str, course: DrawnCourse, measure: Measure, scale: ByteAxis, color: str, ground: str
) -> dict[str, Any]:
    """The name of a curve with its peak, at its peak."""
    values = course.bytes_of(measure)
    at = int(np.argmax(values))
    x, last = float(course.at[at]), float(course.at[-1])
    side = "left" if x < 0.15 * last else "right" if x > 0.85 * last else "center"
    return {
        "x": x,
        "y": float(values[at]) / scale.unit_bytes,
        "xanchor": side,
        "yanchor": "bottom",
        "showarrow": False,
        "text": f"<b>{name}</b> {format_bytes(int(values[at]))}",
        "font": {"color": color, "size": 12},
        "bgcolor": ground,
        "opacity": 0.9,
        "borderpad": 1,
    }


def _part_notes(notes: list[dict[str, Any]], peaks: list[int], highest: int) -> None:
    """Names that would lie over each other: the lower one goes below its line."""
    if abs(peaks[0] - peaks[1]) < 0.09 * highest:
        lower = notes[0] if peaks[0] < peaks[1] else notes[1]
        lower |= {"yanchor": "top", "yshift": -2}
