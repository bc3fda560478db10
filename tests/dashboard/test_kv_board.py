"""The board of simulations: each replay once, whoever asks; questions kept by a name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from memscope_dashboard.jobs import Jobs
from memscope_dashboard.kv_asked import asked_of
from memscope_dashboard.kv_board import KvBoard, RequestsAsked, ServingAsked

from memscope.errors import UsageError
from memscope.serving.simulate import simulate
from tests.dashboard.conftest import WAIT_S
from tests.dashboard.pages import PLAIN, sent


@pytest.fixture
def board() -> Iterator[KvBoard]:
    jobs = Jobs()
    yield KvBoard(jobs)
    jobs.close(WAIT_S)


@pytest.fixture
def asked() -> ServingAsked:
    found, _ = asked_of({"model": "llama-3-8b", "gpu": "L4-24GB", "managers": ["paged"], "n": 4})
    assert found is not None
    return found


def test_a_replay_that_is_done_is_not_made_again(board: KvBoard, asked: ServingAsked) -> None:
    assert board.state(asked).outcomes == (None,)
    board.run(asked)
    assert board._job is not None
    assert board._job.wait(WAIT_S)
    (result,) = board.state(asked).results
    assert result.peak_concurrent_requests == simulate(board.plan(asked).jobs[0]).peak_concurrent_requests
    board.run(asked)
    assert board._job is None
    assert board.state(asked).results == (result,)


def test_a_question_is_found_by_its_name(board: KvBoard, asked: ServingAsked) -> None:
    assert board.named(board.name(asked)) == asked
    assert board.named(None) is board.named("unheard of") is None


def test_only_models_that_are_known_are_planned_and_files_are_cut_to_the_first(
    board: KvBoard, asked: ServingAsked
) -> None:
    with pytest.raises(UsageError, match="there is no model '/etc/passwd'"):
        board.plan(replace(asked, model="/etc/passwd"))
    upload = board.uploads.add_requests("three.csv", sent(PLAIN))
    first = replace(asked, requests=RequestsAsked(upload=upload, n_first=2))
    assert len(board.plan(first).jobs[0].requests) == 2
