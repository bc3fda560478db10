"""What the simulation's controls ask for, and what was simulated for all pages: each replay once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from memscope_dashboard.jobs import Jobs
from memscope_dashboard.kv_board import DEFAULT_N_REQUESTS, KvBoard, RequestsAsked, ServingAsked, asked_of
from memscope_dashboard.store import TraceStore
from memscope_dashboard.views import kv_simulation as view

from memscope.errors import UsageError
from memscope.serving.managers import MANAGERS
from memscope.serving.simulate import simulate
from memscope.units import GiB
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


def test_defaults_answer_with_every_default_manager(board_store: TraceStore) -> None:
    asked, errors = asked_of({"model": "llama-3-8b"})
    assert not errors
    assert asked is not None
    jobs = view.board_of(board_store).plan(asked).jobs
    assert [job.manager for job in jobs] == list(MANAGERS)
    assert len(jobs[0].requests) == DEFAULT_N_REQUESTS
    bigger, _ = asked_of({"model": "llama-3-8b", "capacity": "40GiB", "preemption": "swap", "swap": "8GiB"})
    assert bigger is not None
    assert (bigger.capacity_bytes, bigger.scheduler.swap_bytes) == (40 * GiB, 8 * GiB)


def test_block_sizes_are_left_out_where_no_manager_has_blocks() -> None:
    asked, _ = asked_of({"model": "gpt2", "managers": ["radix"], "block-sizes": ["16", "32"]})
    assert asked is not None
    assert asked.block_sizes == ()
