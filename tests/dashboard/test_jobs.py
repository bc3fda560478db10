"""Work in the background: its progress, its turn, its end by success, by cancelling and by failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from memscope_dashboard.jobs import MAX_ACTIVE, Jobs, Progress, Report

from memscope.errors import UsageError

WAIT_S = 20


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close(WAIT_S)


def test_progress_is_counted_step_by_step(jobs: Jobs) -> None:
    seen, go = [], threading.Event()

    def work(report: Report) -> None:
        report(1, 2)
        assert go.wait(WAIT_S)
        report(2, 2)

    job = jobs.start(work, threading.Lock())
    while job.progress.n_done < 1:
        threading.Event().wait(0.01)
    seen.append(job.progress)
    go.set()
    assert job.wait(WAIT_S)
    assert [*seen, job.progress] == [Progress("running", 1, 2), Progress("done", 2, 2)]
    assert not job.progress.is_active


def test_a_cancelled_job_ends_after_the_step_it_is_at(jobs: Jobs) -> None:
    steps: list[int] = []
    at_first, go = threading.Event(), threading.Event()

    def work(report: Report) -> None:
        for step in range(5):
            at_first.set()
            assert go.wait(WAIT_S)
            steps.append(step)
            report(step + 1, 5)

    job = jobs.start(work, threading.Lock())
    assert at_first.wait(WAIT_S)
    job.cancel()
    go.set()
    assert job.wait(WAIT_S)
    assert steps == [0]
    assert job.progress == Progress("cancelled", 1, 5)


def test_what_was_done_to_the_end_is_not_called_cancelled(jobs: Jobs) -> None:
    started, go = threading.Event(), threading.Event()

    def work(report: Report) -> None:
        started.set()
        assert go.wait(WAIT_S)
        report(1, 1)

    job = jobs.start(work, threading.Lock())
    assert started.wait(WAIT_S)
    job.cancel()
    go.set()
    assert job.wait(WAIT_S)
    assert job.progress.state == "done"


def test_jobs_of_one_turn_follow_each_other_and_can_be_cancelled_while_they_wait(jobs: Jobs) -> None:
    turn, go, order = threading.Lock(), threading.Event(), []

    def first(report: Report) -> None:
        assert go.wait(WAIT_S)
        order.append("first")

    one = jobs.start(first, turn)
    while one.progress.state == "waiting":
        threading.Event().wait(0.01)
    two = jobs.start(lambda report: order.append("two"), turn)
    three = jobs.start(lambda report: order.append("three"), turn)
    assert two.progress.state == three.progress.state == "waiting"
    three.cancel()
    assert three.wait(WAIT_S)
    go.set()
    assert two.wait(WAIT_S)
    assert order == ["first", "two"]
    assert three.progress.state == "cancelled"


def test_a_users_error_is_told_in_its_words_and_a_defect_as_one(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    def users(report: Report) -> None:
        raise UsageError("no such thing: choose another")

    def defect(report: Report) -> None:
        raise ZeroDivisionError("by nought")

    turn = threading.Lock()
    found = [jobs.start(work, turn) for work in (users, defect)]
    assert all(job.wait(WAIT_S) for job in found)
    assert found[0].progress == Progress("failed", 0, 1, "no such thing: choose another")
    assert "ZeroDivisionError: by nought — a defect in memscope" in found[1].progress.problem
    assert "by nought" in caplog.text


def test_closing_ends_every_job() -> None:
    jobs, turn = Jobs(), threading.Lock()

    def work(report: Report) -> None:
        for step in range(10**6):
            threading.Event().wait(0.005)
            report(step, 10**6)

    started = [jobs.start(work, turn) for _ in range(3)]
    jobs.close(WAIT_S)
    assert [job.progress.state for job in started] == ["cancelled"] * 3


def test_no_more_than_so_many_are_under_way_and_none_after_the_end() -> None:
    jobs, go = Jobs(), threading.Event()
    turn = threading.Lock()
    started = [jobs.start(lambda _report: go.wait(WAIT_S) and None, turn) for _ in range(MAX_ACTIVE)]
    with pytest.raises(UsageError, match="16 pieces of work are under way already"):
        jobs.start(lambda _report: None, turn)
    go.set()
    assert all(job.wait(WAIT_S) for job in started)
    assert jobs.start(lambda _report: None, turn).wait(WAIT_S)
    jobs.close(WAIT_S)
    with pytest.raises(UsageError, match="is being closed"):
        jobs.start(lambda _report: None, turn)
