"""Verdicts on the failed requests of one device, kept with its trace: at once without, later with what would help."""

from __future__ import annotations

from memscope.analysis import Opinions
from memscope.oom.verdict import OomVerdict
from memscope_dashboard.board import Board
from memscope_dashboard.jobs import Jobs, Progress, Report


class OomBoard(Board[int, OomVerdict]):
    """What is known of each failed request of a device, by its event.

    Parameters
    ----------
    opinions
        What is thought of the device.
    jobs
        Where searches run, one at a time.
    """

    def __init__(self, opinions: Opinions, jobs: Jobs) -> None:
        super().__init__(jobs)
        self._opinions = opinions
        self.events = tuple(int(event) for event in opinions.device.oom_events)

    def verdict(self, event: int) -> OomVerdict:
        """Why a request failed; with what would have helped if that was searched already.

        Raises
        ------
        UsageError
            If no request of the device failed at this event.
        """
        return self.answer(event) or self._opinions.oom(event, searches=False)

    def search(self, event: int) -> Progress:
        """Begin the search for what would have helped, unless it was begun; how far it is.

        Searches that wait for their turn make way for this one.
        """

        def work(report: Report) -> OomVerdict:
            del report  # one step: it cannot be cancelled on the way
            return self._opinions.oom(event)

        return self.ask(event, work)

    def wait(self, question: int, timeout_s: float | None = None) -> Progress:
        """Wait a little for the end of a search, so that a short one needs no second question."""
        self.search(question)
        super().wait(question, timeout_s)
        return self.search(question)
