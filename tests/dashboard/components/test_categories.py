"""The categories of a moment with their bytes: the ledger as a table, and chips that are a legend."""

from __future__ import annotations

from typing import Any

from memscope_dashboard.components.categories import (
    category_chips,
    category_choice,
    category_legend,
    device_table,
    ledger_table,
)
from memscope_dashboard.store import TraceStore

from memscope.attribution.driver_usage import PYTORCH_RESERVED
from memscope.figures.ledger import empty_rows
from memscope.trace.categories import CATEGORY_BY_LABEL
from memscope.units import format_bytes, format_count
from memscope.words.labels import NOT_MEASURED, row_label
from tests.dashboard.pages import text_of


def rows_of(table: Any) -> list[str]:
    _, body = table.children
    return [text_of(row) for row in body.children]


def test_rows_stand_above_their_sum_and_empty_ones_are_named(store: TraceStore) -> None:
    ledger = store.analysis("train.memscope").peak(0).ledger
    table, nothing = ledger_table(ledger)
    *rows, total = rows_of(table)
    held = [row for row in ledger.rows if row.bytes]
    assert len(rows) == len(held)
    for row, words in zip(held, rows, strict=True):
        assert words.startswith(row_label(row.name))
        assert format_bytes(row.bytes) in words
    assert total.startswith(f"{ledger.total_of}{format_bytes(ledger.total_bytes)}")
    head, body = table.children
    assert text_of(head) == f"sizeof {ledger.total_of}"
    assert body.children[-1].children[1].title == f"{format_count(sum(row.bytes for row in held))} bytes"
    assert text_of(nothing) == f"Nothing in: {', '.join(empty_rows(ledger))}"


def test_a_device_that_was_not_counted_is_not_measured_and_never_zero(store: TraceStore) -> None:
    ledger = store.analysis("train.memscope").peak(0).ledger
    assert ledger.driver_usage is None
    first, *rest = rows_of(device_table(ledger))
    assert first == f"{row_label(PYTORCH_RESERVED)}{format_bytes(ledger.total_bytes)}"
    assert len(rest) > 1
    assert all(row.endswith(NOT_MEASURED) for row in rest)


def test_each_row_that_holds_bytes_is_a_chip_with_its_exact_size(store: TraceStore) -> None:
    ledger = store.analysis("train.memscope").peak(0).ledger
    held = [row for row in ledger.rows if row.bytes]
    chips = category_chips(store.analysis("train.memscope").peak(0))
    assert [text_of(chip) for chip in chips] == [f"{row_label(row.name)}{format_bytes(row.bytes)}" for row in held]
    assert all(format_count(row.bytes) in chip.title for row, chip in zip(held, chips, strict=True))


def test_only_categories_can_be_chosen_and_free_memory_cannot(store: TraceStore) -> None:
    moment = store.analysis("train.memscope").peak(0)
    values = [chip.value for chip in category_choice(moment)]
    held = {row.name for row in moment.ledger.rows if row.bytes}
    assert set(values) == held & set(CATEGORY_BY_LABEL)
    assert held - set(values)


def test_a_legend_names_rows_without_a_size() -> None:
    assert [text_of(chip) for chip in category_legend(["weights", "free_pinned"])] == [
        row_label("weights"),
        row_label("free_pinned"),
    ]
