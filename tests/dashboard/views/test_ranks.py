"""The ranks view: the comparison's numbers, and a click that opens a rank at the same step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dash import no_update
from memscope_dashboard.app import create_app
from memscope_dashboard.components.navigation import choose
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import ranks
from memscope_dashboard.views.ranks import open_ranks

from memscope.errors import UsageError
from memscope.trace.container import write_container
from tests.dashboard.pages import moment_data, page_values, post, subject_of, text_of, wanted
from tests.rank_traces import Act, MiB, rank_trace, training

FOUR: tuple[list[Act], ...] = (training(10, 30), training(60, 10, 10), training(10, 30), training(20, 40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    for rank, acts in enumerate(FOUR):
        write_container(rank_trace(acts, rank=rank), folder / f"run-rank{rank}.memscope")
    (folder / "broken.memscope").write_bytes(b"nothing of the kind")
    return folder


@pytest.fixture(scope="module")
def four(folder: Path) -> Iterator[TraceStore]:
    store = TraceStore([folder / f"run-rank{rank}.memscope" for rank in range(4)], n_kept=2)
    yield store
    store.close()


def shown(store: TraceStore, trace_id: str, measure: str = "allocated") -> list[Any]:
    return ranks.update(store, subject_of(moment_data(store, trace_id)), "light", measure)


def test_the_finding_and_the_differences_are_those_of_the_comparison(four: TraceStore) -> None:
    title, note, alone, shown_class, _, bars, steps_title, steps, differs, rows, columns, same = shown(
        four, "run-rank2.memscope"
    )
    assert text_of(title).startswith("Rank 1 peaks highest: 80.0 MiB allocated")
    assert "Click a bar" in text_of(note)
    assert (alone, shown_class) == (None, "panel-stack")
    assert bars.layout.shapes[0].x0 == pytest.approx(1.54)
    assert "in each of 3 steps; blank: not recorded" in steps_title
    assert len(steps.data[0].y) == 4
    assert differs == "What rank 1 holds beyond rank 0 in step 0: +50.0 MiB"
    assert [(row["name"], row["kind"], row["difference"]) for row in rows] == [
        ("activations", "category", 50 * MiB),
        ("fc output", "owner", 50 * MiB),
    ]
    assert [column["headerName"] for column in columns[2:4]] == ["rank 1", "rank 0"]
    assert "steps2 (ranks" in text_of(same)


def test_the_comparison_keeps_no_trace_in_memory(four: TraceStore) -> None:
    comparison = open_ranks(four).comparison
    assert comparison is not None
    assert comparison.analyses == ()
    assert len(four.loaded_ids) <= 2
    assert open_ranks(four) is open_ranks(four)


def test_a_click_on_a_bar_opens_that_rank_at_the_same_step(four: TraceStore) -> None:
    in_step_1 = Query("run-rank0.memscope").resolved(four)  # its peak is in step 1
    jump = ranks.clicked_rank(four, {"points": [{"x": "rank 1"}]}, in_step_1.data())
    comparison = open_ranks(four).comparison
    assert comparison is not None
    use = comparison.steps[1].uses[1]
    assert use is not None
    assert jump == {"trace": "run-rank1.memscope", "device": 0, "event": use.allocated_event}
    query = choose(four, "jump", in_step_1.data(), wanted(jump=jump))
    assert query == Query("run-rank1.memscope", 0, use.allocated_event)
    assert query.moment(four).allocated_bytes == 30 * MiB


def test_a_step_that_the_other_rank_lacks_leads_to_its_peak(four: TraceStore) -> None:
    comparison = open_ranks(four).comparison
    assert comparison is not None
    use = comparison.steps[2].uses[1]
    assert use is not None
    now = Query("run-rank1.memscope", 0, use.allocated_event)
    jump = ranks.clicked_rank(four, {"points": [{"x": "rank 0"}]}, now.data())
    assert jump["event"] == four.analysis("run-rank0.memscope").peak(0).event


def test_a_click_on_a_cell_opens_that_rank_in_that_step(four: TraceStore) -> None:
    jump = ranks.clicked_step(four, {"points": [{"x": "step 1", "y": "rank 3"}]}, "allocated")
    moment = Query(jump["trace"], jump["device"], jump["event"]).moment(four)
    assert (jump["trace"], moment.allocated_bytes) == ("run-rank3.memscope", 60 * MiB)
    reserved = ranks.clicked_step(four, {"points": [{"x": "step 1", "y": "rank 3"}]}, "reserved")
    assert Query(reserved["trace"], 0, reserved["event"]).moment(four).reserved_bytes == 80 * MiB
    assert ranks.clicked_step(four, {"points": [{"x": "step 2", "y": "rank 0"}]}, "allocated") is no_update
    assert ranks.clicked_step(four, {"points": [{"x": "<b>", "y": "rank 0"}]}, "allocated") is no_update
    assert ranks.clicked_rank(four, {"points": [{"x": "rank 9"}]}, {"trace": "run-rank0.memscope"}) is no_update


def test_one_trace_alone_says_how_to_open_several(folder: Path) -> None:
    store = TraceStore([folder / "run-rank0.memscope"])
    title, _, alone, shown_class, *rest = shown(store, "run-rank0.memscope")
    assert "nothing to set it against" in title
    assert "memscope dash run-rank0.memscope run-rank1.memscope" in text_of(alone)
    assert shown_class == "hidden"
    assert rest == [no_update] * 8


def test_a_broken_file_is_left_out_and_named(folder: Path) -> None:
    store = TraceStore([folder / name for name in ("run-rank0.memscope", "broken.memscope", "run-rank1.memscope")])
    title, note, *_ = ranks.update(store, {"trace": "broken.memscope", "device": None}, "light", "allocated")
    assert text_of(title).startswith("Rank 1 peaks highest")
    assert "broken.memscope" in text_of(note)
    jump = ranks.clicked_rank(store, {"points": [{"x": "rank 1"}]}, {"trace": "broken.memscope"})
    now = {"trace": "broken.memscope", "device": None, "event": None}
    assert choose(store, "jump", now, wanted(jump=jump)).trace_id == "run-rank1.memscope"


def test_two_files_of_one_rank_are_named_in_place_of_the_view(folder: Path, tmp_path: Path) -> None:
    twin = write_container(rank_trace(FOUR[1], rank=0), tmp_path / "again.memscope")
    store = TraceStore([folder / "run-rank0.memscope", folder / "run-rank1.memscope", twin])
    with pytest.raises(UsageError, match=r"run-rank0\.memscope and .*again\.memscope both say"):
        shown(store, "run-rank0.memscope")
    data = moment_data(store, "run-rank0.memscope")
    _, answer, _ = post(create_app(store), "ranks-title.children", page_values(data))
    assert "both say that they are rank 0" in text_of_json(answer["response"]["ranks-problem"]["children"])


def text_of_json(component: Any) -> str:
    if isinstance(component, dict):
        return text_of_json(component["props"].get("children"))
    return "".join(map(text_of_json, component)) if isinstance(component, list) else str(component)
