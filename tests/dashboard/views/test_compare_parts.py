"""The pictures and tables of a comparison: the same numbers as ``memscope diff --json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from dash.exceptions import PreventUpdate
from memscope_dashboard.app import create_app
from memscope_dashboard.compare_board import Pair, board_of
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views.compare_parts import (
    bridge_panel,
    compared_of,
    draw_bridge,
    draw_flame,
    fill_rows,
    flame_panel,
    rows_panel,
    show_row,
)

from memscope.cli.main import cli
from tests.dashboard.conftest import TRACES, WAIT_S
from tests.dashboard.pages import ids_of, post, text_of

TRAIN, OOM = "tiny-llama-train.memscope", "tiny-out-of-memory.memscope"
PAIR = Pair(TRAIN, "peak", OOM, "peak", 0).data()


@pytest.fixture(scope="module")
def two() -> Iterator[TraceStore]:
    store = TraceStore([TRACES / TRAIN, TRACES / OOM])
    yield store
    store.close(WAIT_S)


def diff_json(*options: str) -> dict[str, Any]:
    found = CliRunner().invoke(cli, ["diff", *options, "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.mark.parametrize("by", ["holder", "module", "site"])
def test_the_rows_are_those_of_diff_json(two: TraceStore, by: str) -> None:
    truth = diff_json(str(TRACES / TRAIN), str(TRACES / OOM), "--by", by)
    rows = [
        (row["key"], row["category"], row["change"], row["a_bytes"], row["b_bytes"], row["delta_bytes"])
        for row in truth["rows"]
        if row["delta_bytes"] and row["change"] is not None
    ]
    _, found, _, note, _ = fill_rows(two, PAIR, by, "all")
    shown = [(r["whole"], r["category"], r["change"], r["a"], r["b"], r["delta"]) for r in found]
    assert [row[1:] for row in shown] == [row[1:] for row in rows]
    assert len({row[0] for row in shown} & {row[0] for row in rows}) > 0.9 * len({row[0] for row in rows})
    matched = truth["matched"]
    assert f"{matched['n_new']:,} new, {matched['n_gone']:,} gone" in note


@pytest.mark.parametrize("measure", ["allocated", "reserved"])
@pytest.mark.parametrize("pic", ["category", "holder", "module", "site"])
def test_the_waterfall_closes_to_the_byte(two: TraceStore, pic: str, measure: str) -> None:
    truth = diff_json(str(TRACES / TRAIN), str(TRACES / OOM))
    words, figure, style, label, table = draw_bridge(two, PAIR, "dark", pic, measure)
    delta = truth["delta_bytes"] if measure == "allocated" else truth["delta_reserved_bytes"]
    bars = figure.data
    assert bars[-1].base[0] + bars[-1].x[0] - bars[0].base[0] - bars[0].x[0] == delta
    assert sum(bar.x[0] for bar in bars[1:-1]) == delta
    assert f"{delta:+,}" in text_of(table)
    assert measure in words
    assert words == label
    assert style == {"height": f"{figure.layout.height}px"}
    if pic == "category" and measure == "allocated":
        changes = [row["delta_bytes"] for row in truth["categories"] if row["delta_bytes"]]
        assert [bar.x[0] for bar in bars[1:-1]] == changes


@pytest.mark.parametrize("kind", ["calls", "modules"])
@pytest.mark.parametrize("own", [True, False])
def test_the_flame_graph_has_the_sums_of_diff_json(two: TraceStore, kind: str, own: bool) -> None:
    truth = diff_json(str(TRACES / TRAIN), str(TRACES / OOM))
    title, legend, crumbs, figure, style, table, focus, is_off = draw_flame(two, PAIR, "light", kind, own, 0)
    assert f"({truth['delta_bytes']:+,} bytes" in figure.data[0].hovertext[0]
    assert title.startswith("Where it comes from:")
    assert "gone" in text_of(legend)
    assert style == {"height": f"{figure.layout.height}px"}
    assert (crumbs, focus, is_off) == ([], 0, kind == "modules")
    assert "allocated" in text_of(table)


def test_a_box_is_a_graph_of_its_own_and_the_way_up_is_named(two: TraceStore) -> None:
    tree = compared_of(board_of(two), PAIR).tree(is_by_module=False, own_only=True)
    deep = next(node for node in range(1, len(tree)) if len(tree.path(node)) == 3)
    _, _, crumbs, figure, _, _, focus, _ = draw_flame(two, PAIR, "light", "calls", True, deep)
    assert focus == deep
    assert figure.layout.meta["above"] == tree.parent[deep]
    assert figure.data[0].customdata[0] == deep
    assert [part.id["node"] for part in crumbs if hasattr(part, "id")] == [0, *tree.path(deep)[:-1]]
    assert draw_flame(two, PAIR, "light", "calls", True, 10**6)[6] == 0


def test_the_chosen_row_has_its_stack_and_the_address_names_it(two: TraceStore) -> None:
    _, rows, _, _, chosen = fill_rows(two, PAIR | {"row": 2}, "holder", "all")
    assert chosen == {"ids": ["2"]}
    assert fill_rows(two, PAIR, "holder", "all", False)[4] == []
    panel, row = show_row(two, PAIR, "holder", [rows[0]])
    assert row == int(rows[0]["row"])
    assert "generate.py" in text_of(panel)
    assert f"{rows[0]['delta']:+,} bytes" in text_of(panel)
    assert show_row(two, PAIR, "holder", []) == (None, None)
    assert show_row(two, PAIR, "holder", [{"row": "999999"}]) == (None, None)
    assert [r["change"] for r in fill_rows(two, PAIR, "holder", "new")[1]] == ["new"] * 3


def test_steps_of_one_run_are_those_of_diff_json(two: TraceStore) -> None:
    truth = diff_json(str(TRACES / TRAIN), "--steps", "0:2")
    pair = Pair(TRAIN, "step:0", TRAIN, "step:2", 0).data()
    found = fill_rows(two, pair, "holder", "all")[1]
    wanted = [row["delta_bytes"] for row in truth["rows"] if row["delta_bytes"] and row["change"] is not None]
    assert [row["delta"] for row in found] == wanted


def test_nothing_is_drawn_without_a_pair_and_every_answer_is_small(two: TraceStore) -> None:
    with pytest.raises(PreventUpdate):
        compared_of(board_of(two), None)
    app = create_app(two)
    values = {"compare-pair.data": PAIR, "scheme.data": "dark", "compare-own.checked": False}
    for output in (
        "compare-bridge.figure",
        "compare-grid.rowData",
        "compare-flame.figure",
        "compare-row-panel.children",
    ):
        status, _, n_bytes = post(app, output, values)
        assert (status, n_bytes < 1_000_000) == (200, True)
    bad = values | {"compare-pair.data": PAIR | {"a": "gone"}}
    assert post(app, "compare-bridge.figure", bad)[0] == 204


def test_the_panels_have_what_is_filled() -> None:
    found = {name for panel in (bridge_panel(), rows_panel(), flame_panel()) for name in ids_of(panel)}
    assert {"compare-bridge", "compare-bridge-table", "compare-grid", "compare-flame", "compare-flame-table"} <= found
