"""Small pieces of text: sizes with their exact bytes, headings, lists without what is missing."""

from __future__ import annotations

from dataclasses import replace

from memscope_dashboard.components.text import code_line, facts, finding, picture, recording_notes, section, size

from memscope.words.labels import NOT_MEASURED
from tests.dashboard.pages import ids_of, text_of
from tests.training_trace import training_trace


def test_a_size_has_its_exact_bytes_and_a_missing_one_says_so() -> None:
    assert (text_of(size(1536)), size(1536).title) == ("1.5 KiB", "1,536 bytes")
    assert text_of(size(0)) == "0 B"
    assert (text_of(size(None)), size(None).className) == (NOT_MEASURED, "not-measured")


def test_a_number_is_never_parted_from_its_unit() -> None:
    parts = finding("Peak 64.0 MiB, 12.5 % of it free")
    assert [text_of(part) for part in parts] == ["Peak ", "64.0 MiB", ", ", "12.5 %", " of it free"]
    assert [getattr(part, "className", "") for part in parts] == ["", "num", "", "num", ""]


def test_facts_leave_out_what_has_no_value() -> None:
    assert text_of(facts([("requested", size(512)), ("owner", None), ("stream", "default")])) == (
        "requested512 Bstreamdefault"
    )


def test_notes_on_the_recording_are_folded_up_and_counted() -> None:
    trace = training_trace()
    noted = replace(trace, metadata=replace(trace.metadata, notes=("one thing", "another")))
    (folded,) = recording_notes(noted)
    assert text_of(folded) == "2 notes on this way of recordingone thinganother"
    assert recording_notes(replace(trace, metadata=replace(trace.metadata, notes=()))) == []


def test_places_have_their_ids_and_pictures_are_blank_until_they_come() -> None:
    place = section("Ledger", picture("bar"), id="ledger")
    assert ids_of(place) == ["ledger", "bar"]
    assert picture("bar").figure["data"] == []


def test_a_line_to_copy_is_copied_whole() -> None:
    code, copy = code_line("optimizer.step()  # once").children
    assert code.children == copy.value == "optimizer.step()  # once"
