"""Phases, steps and the place of allocations in a dry run."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.trace.schema import MarkKind
from tests.capture.programs import dry_run, small_model, train

torch = pytest.importorskip("torch")


def test_phases_and_optimizer_steps_are_marked() -> None:
    with dry_run() as rec:
        train(small_model(), steps=2)
    labels = [rec.trace.strings[label] for label in rec.trace.marks.label_id]
    once = ["forward", "forward", "backward", "backward", "optimizer", "optimizer"]
    assert labels == [*once, "0", *once, "1"]
    assert np.all(np.diff(rec.trace.marks.event) >= 0)


def test_steps_that_the_program_names_replace_those_of_its_optimizer() -> None:
    with dry_run() as rec:
        train(small_model(), steps=1)
        rec.step("warm-up")
    steps = rec.trace.marks.label_id[rec.trace.marks.kind == MarkKind.STEP]
    assert [rec.trace.strings[label] for label in steps] == ["warm-up"]
