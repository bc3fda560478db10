"""Answers made in the background and kept by their questions: each made once, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock, RLock
from typing import Generic, TypeVar

from memscope.recently_used import RecentlyUsed
from memscope_dashboard.jobs import Job, Jobs, Progress, Report

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")

IDLE = Progress("done")
"""Of what nobody works on."""
_MANY = 1 << 20


class Board(Generic[Question, Answer]):
    """What is known of some questions.

    Parameters
    ----------
    jobs
        Where the work is started.
    turn
        Held while an answer is made; boards that share one work one after the other.
    n_kept
        Answers that are kept; the one used longest ago goes first. All if not given.
    """

    def __init__(self, jobs: Jobs, turn: Lock | None = None, n_kept: int = _MANY) -> None:
        self._jobs = jobs
        self._turn = turn or Lock()
        self._guard = RLock()
        self._answers: RecentlyUsed[Question, Answer] = RecentlyUsed(n_kept)
        self._running: dict[Question, Job] = {}

    def answer(self, question: Question) -> Answer | None:
        """The answer; None as long as there is none."""
        with self._guard:
            return self._answers.get(question)

    def progress(self, question: Question) -> Progress:
        """How far an answer is: done where there is one, and where nobody works on it."""
        with self._guard:
            job = self._running.get(question)
            return IDLE if question in self._answers or job is None else job.progress

    def ask(self, question: Question, work: Callable[[Report], Answer], *, again: bool = False) -> Progress:
        """See to it that a question is answered; how far that is. Work on other questions makes way for this one.

        Work that was cancelled is begun again; what failed is only tried again if ``again`` says so.
        """
        with self._guard:
            if question in self._answers:
                return IDLE
            job = self._running.get(question)
            state = None if job is None else job.progress.state
            if job is None or job.is_cancelled or (again and state == "failed"):
                for other in self._running.values():
                    other.cancel()
                job = self._jobs.start(lambda report: self._work(question, work, report), self._turn)
                self._running = {asked: one for asked, one in self._running.items() if one.progress.is_active}
                self._running[question] = job
            return job.progress

    def wait(self, question: Question, timeout_s: float | None = None) -> Progress:
        """Wait a little for the end of work, so that short work needs no second question; how far it is then."""
        with self._guard:
            job = self._running.get(question)
        if job is not None:
            job.wait(timeout_s)
        return self.progress(question)

    def cancel(self) -> None:
        """End what waits or runs, after the step that it is at."""
        with self._guard:
            for job in self._running.values():
                job.cancel()

    def close(self) -> None:
        """What the board belongs to is not kept any longer: end its work."""
        self.cancel()

    def _work(self, question: Question, work: Callable[[Report], Answer], report: Report) -> None:
        found = work(report)
        with self._guard:
            self._answers.put(question, found)
        report(1, 1)
