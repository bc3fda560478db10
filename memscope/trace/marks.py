"""Steps and phases of a trace as spans of events."""

from __future__ import annotations

from dataclasses import dataclass

from memscope.trace.schema import MarkKind
from memscope.trace.trace import Trace, shown


@dataclass(frozen=True, slots=True)
class Span:
    """Events ``begin <= event < end`` under one name; ``depth`` counts the spans it lies in."""

    label: str
    begin: int
    end: int
    depth: int = 0


def step_spans(trace: Trace) -> list[Span]:
    """The steps: each ends at its mark and begins where the one before ended."""
    spans = []
    begin = 0
    for event, kind, label_id in zip(trace.marks.event, trace.marks.kind, trace.marks.label_id, strict=True):
        if kind == MarkKind.STEP:
            spans.append(Span(shown(trace.strings[label_id]), begin, int(event)))
            begin = int(event)
    return spans


def phase_spans(trace: Trace) -> list[Span]:
    """The phases, by their begin; one left open lasts to the last event, an end without a begin is left out."""
    open_spans: list[tuple[str, int]] = []
    spans = []
    for event, kind, label_id in zip(trace.marks.event, trace.marks.kind, trace.marks.label_id, strict=True):
        label = shown(trace.strings[label_id])
        if kind == MarkKind.PHASE_BEGIN:
            open_spans.append((label, int(event)))
        elif kind == MarkKind.PHASE_END:
            position = next((i for i in range(len(open_spans) - 1, -1, -1) if open_spans[i][0] == label), None)
            if position is not None:
                _, begin = open_spans.pop(position)
                spans.append(Span(label, begin, int(event), position))
    spans += [Span(label, begin, trace.n_events, depth) for depth, (label, begin) in enumerate(open_spans)]
    return sorted(spans, key=lambda span: (span.begin, span.depth))


def describe_moment(trace: Trace, event: int) -> str:
    """Where an event lies: ``step 1, backward``; an empty text where neither steps nor phases were marked."""
    words = []
    steps = step_spans(trace)
    within = next((span for span in steps if span.begin <= event < span.end), None)
    if within is not None:
        words.append(within.label if within.label.lower().startswith("step") else f"step {within.label}")
    elif steps and event >= steps[-1].end:
        words.append("after the last step")
    phases = [span for span in phase_spans(trace) if span.begin <= event < span.end]
    if phases:
        words.append(max(phases, key=lambda span: span.depth).label)
    return ", ".join(words)
