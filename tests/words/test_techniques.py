"""Techniques in words: every cost is named, what does not apply is said once a reason, a plan says whether it fits."""

from __future__ import annotations

from typing import get_args

from memscope.techniques.fit import FitPlan
from memscope.techniques.technique import Cost, Proof
from memscope.techniques.through import LetThrough
from memscope.techniques.whatif import Peaks, WhatIf, WhatIfs
from memscope.units import GiB, MiB
from memscope.words.techniques import (
    PROOF_WORDS,
    as_it_is_words,
    cost_words,
    costs_words,
    fit_words,
    refused_words,
    technique_words,
)

PEAKS = Peaks(8 * GiB, 10 * GiB)


def result(note: str | None = None) -> WhatIf:
    costs = (Cost(n_passes=2), Cost(), Cost(precision="weights in int8"))
    return WhatIf("micro-batch:2", PEAKS, GiB, 0, costs, "changed-program", ("",), note)


def test_every_proof_has_words() -> None:
    assert set(PROOF_WORDS) == set(get_args(Proof))


def test_costs_are_named_and_there_are_none_of_what_changes_nothing() -> None:
    assert cost_words(Cost(recomputed_frac=0.2, moved_bytes_per_step=MiB)) == "+20.0 % work; 1.0 MiB moved a step"
    assert costs_words(result()) == "2 passes in place of one; weights in int8"
    assert costs_words(result("is in force")) == ""


def test_the_baseline_of_a_run_that_failed_had_more_than_the_run() -> None:
    found = WhatIfs(0, PEAKS, (GiB, 2 * GiB), ())
    assert as_it_is_words(found) == "as it is"
    failed = WhatIfs(0, PEAKS, (GiB, None), (), failed_bytes=64 * MiB)
    assert as_it_is_words(failed) == ("had the request for 64.0 MiB not failed; the run itself had 1.0 GiB allocated")


def test_a_reason_is_said_once() -> None:
    refused = [("a", "a does not apply: no cache"), ("b", "b does not apply: no cache"), ("c", "odd")]
    assert refused_words(refused) == ["a, b do not apply: no cache", "c does not apply: odd"]


def test_a_plan_says_whether_it_fits_and_what_is_left() -> None:
    def plan(capacity: int, *, fits: bool, steps: int = 0, n_retries: int = 0) -> str:
        return fit_words(FitPlan("T4", capacity, PEAKS, PEAKS, (result(),) * steps, fits, n_retries))

    assert plan(12 * GiB, fits=True).endswith("with 2.0 GiB to spare as it is")
    assert plan(12 * GiB, fits=True, steps=2).startswith("with 2 changes it fits T4")
    assert plan(9 * GiB, fits=True, steps=1, n_retries=3).endswith("cached memory given back 3 times")
    assert plan(9 * GiB, fits=False, steps=1).endswith("it still lacks 1.0 GiB")


def test_what_would_have_let_a_request_through_says_what_it_takes_off() -> None:
    words = technique_words(LetThrough("quantize:int8", GiB, 2 * GiB, Cost(precision="int8"), "unproved", ""))
    assert words == "quantize:int8: 2.0 GiB less in use, 1.0 GiB in use with it (costs int8)"
