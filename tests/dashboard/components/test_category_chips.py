"""The chips of categories: every row of the ledger that holds bytes, as a legend and as a choice."""

from __future__ import annotations

from memscope_dashboard.components.category_chips import category_chips, category_choice, category_legend
from memscope_dashboard.store import TraceStore

from memscope.trace.categories import CATEGORY_BY_LABEL
from memscope.units import format_bytes, format_count
from memscope.words.labels import row_label
from tests.dashboard.pages import text_of


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
