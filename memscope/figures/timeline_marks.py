"""Steps and phases on a timeline: strips above it that name them, and faint bounds through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from memscope.analysis import Analysis
from memscope.figures.labels import plain
from memscope.figures.theme import Theme
from memscope.figures.timeline_data import TimelineData, x_of_events
from memscope.trace.marks import Span

_STRIP_PX = 20
_MAX_DEPTH = 2
_MAX_SPANS = 80
_PLOT_PX = 680
_CHARACTER_PX = 7.4


def strip_height(data: TimelineData, low: float, high: float) -> int:
    """Pixels that the strips above the plot take."""
    del low, high
    return _STRIP_PX * len(_strips(data))


def _strips(data: TimelineData) -> list[tuple[Span, ...]]:
    """The strips from bottom to top: phases by depth, innermost lowest, then the steps.

    Profilers mark a step as a phase too; such a phase is drawn once, as the step.
    """
    step_labels = {span.label for span in data.steps}
    phases = [span for span in data.phases if span.label not in step_labels]
    depths = sorted({span.depth for span in phases}, reverse=True)[-_MAX_DEPTH:]
    strips = [tuple(span for span in phases if span.depth == depth) for depth in depths]
    return [*strips, data.steps] if data.steps else strips


def mark_shapes(
    analysis: Analysis, data: TimelineData, theme: Theme, low: float, high: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shapes and annotations of the steps and phases that can be seen in ``low … high``."""
    x = x_of_events(analysis, data.device, data.axis)
    first = analysis.device(data.device).first_event
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for row, spans in enumerate(_strips(data)):
        is_steps = spans is data.steps
        drawn = _visible(spans, x, first, low, high)
        for position, (span, begin, end) in enumerate(drawn):
            shapes.append(_strip_shape(begin, end, row, position, theme))
            if is_steps or len(drawn) <= _MAX_SPANS // 2:
                shapes.append(_bound_shape(begin, theme))
            label = _label(span, is_steps)
            room = (end - begin) / (high - low) * _PLOT_PX / _CHARACTER_PX - 1
            if room >= min(len(label), 4):
                notes.append(_strip_note((begin + end) / 2, row, plain(label, max(int(room), 3)), theme))
    return shapes, notes


def _label(span: Span, is_step: bool) -> str:
    return f"step {span.label}" if is_step and not span.label.lower().startswith("step") else span.label


def _visible(
    spans: Sequence[Span], x: np.ndarray, first: int, low: float, high: float
) -> list[tuple[Span, float, float]]:
    """The widest spans inside the visible range, with their ends in its unit, in order."""
    found = []
    for span in spans:
        begin = float(x[np.clip(span.begin - first, 0, len(x) - 1)])
        end = float(x[np.clip(span.end - first, 0, len(x) - 1)])
        begin, end = max(begin, low), min(end, high)
        if end > begin:
            found.append((span, begin, end))
    found = sorted(found, key=lambda item: item[1] - item[2])[:_MAX_SPANS]
    return sorted(found, key=lambda item: item[1])


def _strip_shape(begin: float, end: float, row: int, position: int, theme: Theme) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "x",
        "x0": begin,
        "x1": end,
        "yref": "paper",
        "ysizemode": "pixel",
        "yanchor": 1,
        "y0": row * _STRIP_PX + 3,
        "y1": (row + 1) * _STRIP_PX + 1,
        "line": {"width": 1, "color": theme.surface},
        "fillcolor": theme.faint if position % 2 else theme.grid,
        "layer": "below",
    }


def _bound_shape(at: float, theme: Theme) -> dict[str, Any]:
    line = {"color": theme.faint, "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _strip_note(middle: float, row: int, text: str, theme: Theme) -> dict[str, Any]:
    return {
        "x": middle,
        "xref": "x",
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "yshift": row * _STRIP_PX + 1,
        "text": text,
        "showarrow": False,
        "font": {"size": 12, "color": theme.muted},
    }
