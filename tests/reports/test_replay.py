"""Verification and replays as text and as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import re

from rich.console import Console

from memscope.analysis import Analysis
from memscope.device.limits import Limits
from memscope.replay.verify.divergence import Divergence
from memscope.replay.verify.verify import DeviceVerification, VerifyResult, verify
from memscope.reports.replay import (
    comparison_json,
    print_comparison,
    print_verification,
    verification_failure,
    verification_json,
)
from memscope.units import GiB, MiB
from tests.oom.planted import Program, holes_between_pins
from tests.replay.comparisons import FAILED, OTHER, bound_of, comparison_of, result_of

COMPARISON = comparison_of(10 * GiB, result_of("", 10 * GiB), result_of(OTHER, 8 * GiB, oom=FAILED), bound_of(7 * GiB))


def recorded() -> Analysis:
    return Analysis(holes_between_pins(Program(256 * MiB)).trace())


def test_the_recording_stands_beside_its_replays_and_failures_are_said() -> None:
    out = io.StringIO()
    print_comparison(recorded(), COMPARISON, Console(file=out, width=160))
    text = out.getvalue()
    assert re.search(r"recorded +default +10\.0 GiB +40\.0 %", text)
    assert re.search(r"lower-bound +7\.0 GiB +3\.0 GiB +50\.0 % .* bound", text)
    assert "no limit: the device's memory was not recorded, and no capacity was given" in text
    assert f"caching {OTHER}: out of memory at event 7, asking for 2.0 GiB with 1.0 GiB free on the device" in text


def test_a_replay_that_fails_before_it_reserves_anything_has_no_efficiency() -> None:
    out = io.StringIO()
    never = result_of(None, 0, strategy="planned", exactness="modelled", oom=FAILED)
    print_comparison(recorded(), comparison_of(10 * GiB, result_of("", 10 * GiB), never), Console(file=out, width=160))
    (row,) = [line for line in out.getvalue().splitlines() if line.strip().startswith("planned ")]
    assert "0 B" not in row
    assert "%" not in row


def test_requests_that_were_refused_are_counted_where_the_program_went_on() -> None:
    def text_of(n_ooms: int, fatal_event: int | None) -> str:
        comparison = comparison_of(10 * GiB, dataclasses.replace(result_of("", 10 * GiB), n_ooms=5))
        run = dataclasses.replace(comparison.recorded, n_ooms=n_ooms, fatal_event=fatal_event)
        out = io.StringIO()
        print_comparison(recorded(), dataclasses.replace(comparison, recorded=run), Console(file=out, width=160))
        return out.getvalue()

    assert "refused" in text_of(6, 9)
    assert "refused" in text_of(6, None)
    assert "refused" not in text_of(1, 9)
    assert "refused" not in text_of(0, None)


def test_a_fraction_is_said_not_to_bind_other_strategies() -> None:
    def text_of(limits: Limits) -> str:
        out = io.StringIO()
        comparison = comparison_of(10 * GiB, result_of("", 10 * GiB), bound_of(7 * GiB), limits=limits)
        print_comparison(recorded(), comparison, Console(file=out, width=160))
        return out.getvalue()

    assert "strategies other than caching may take the whole device" in text_of(Limits(40 * GiB, 0, 0.25))
    assert "strategies other than caching" not in text_of(Limits(40 * GiB, 0))


def test_the_json_of_a_comparison_is_ordered_and_a_failed_replay_saves_nothing() -> None:
    content = json.loads(json.dumps(comparison_json(recorded(), COMPARISON)))
    found = [(one["strategy"], one["peak_reserved_bytes"] // GiB, one["saved_bytes"]) for one in content["results"]]
    assert found == [("lower-bound", 7, 3 * GiB), ("caching", 10, 0), ("caching", 8, None)]
    failed = content["results"][2]["oom"]
    assert (failed["event"], failed["requested_bytes"], failed["free_bytes"]) == (7, 2 * GiB, GiB)
    assert content["recorded"]["efficiency_frac"] == 0.4


def test_an_exact_verification_says_how_much_was_compared() -> None:
    analysis = recorded()
    result = verify(analysis.trace)
    out = io.StringIO()
    print_verification(analysis, result, Console(file=out, width=200))
    assert "● device 0: exact. 33 of 33 events, every address and the final blocks" in out.getvalue()
    content = verification_json(analysis, result)
    assert (content["exact"], content["first_divergence"], content["n_events_compared"]) == (True, None, 33)


def test_a_verification_that_is_not_exact_says_where_it_parts_or_why_it_cannot_be_made() -> None:
    parted = Divergence(6, "a block of 10", "a segment", "a free block would have served it")
    device = DeviceVerification(0, False, 6, 10, first_divergence=parted)
    result = VerifyResult((device,))
    assert verification_failure(result) == ("device 0 diverges at event 6: recorded a block of 10, replayed a segment")
    out = io.StringIO()
    print_verification(recorded(), result, Console(file=out, width=200))
    assert "✕ device 0: diverges after 6 equal events" in out.getvalue()
    unknown = DeviceVerification(1, False, 0, 10, not_comparable="no addresses")
    assert verification_failure(VerifyResult((unknown,))) == "device 1 cannot be verified: no addresses"
    assert verification_failure(VerifyResult(())) == "the trace has no device to verify"
