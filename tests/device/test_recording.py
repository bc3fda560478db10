"""A recorded trace as a whole: its name, and how far it can be trusted."""

from __future__ import annotations

import dataclasses

import numpy as np

from memscope.device.recording import RecordedTrace
from memscope.trace.metadata import TraceMetadata
from tests.naive_layout import random_layout


def test_it_is_called_by_the_file_it_was_opened_from() -> None:
    trace = random_layout(5, 30).trace()
    assert RecordedTrace(trace, "somewhere/run.memscope").name == "run.memscope"
    assert RecordedTrace(trace).name == "the trace"


def test_a_dry_run_is_never_called_exact() -> None:
    layout = random_layout(5, 30)
    assert RecordedTrace(layout.trace()).is_exact
    trace = layout.trace()
    predicted = RecordedTrace(dataclasses.replace(trace, metadata=TraceMetadata(source="dry-run")))
    assert not predicted.is_exact
    assert "dry run" in predicted.trust_sentence()
    late = RecordedTrace(layout.trace(len(layout.events) // 2))
    assert not late.is_exact
    assert "cannot be told" in late.trust_sentence()


def test_what_is_not_known_of_the_bytes_is_not_passed_over() -> None:
    trace = random_layout(5, 30).trace()
    assert RecordedTrace(trace).trust_sentence() == "Every byte since the first allocation is accounted for."
    trace = dataclasses.replace(trace, stack_id=np.where(np.arange(trace.n_events) % 2, trace.stack_id, -1))
    assert RecordedTrace(trace).completeness.warnings
    assert "; what is not known of them is said beside this" in RecordedTrace(trace).trust_sentence()
