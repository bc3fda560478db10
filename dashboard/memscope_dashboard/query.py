"""What the user is looking at: a trace, a device, a moment. It lives in the address bar and in one ``dcc.Store``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from memscope.analysis import Analysis, Opinions
from memscope.device.device import Moment
from memscope.errors import UsageError
from memscope.trace.schema import NONE_ID
from memscope_dashboard.store import TraceStore


@dataclass(frozen=True, slots=True)
class Query:
    """A trace and, where they are known, its device and the event after which the moment lies.

    ``device`` and ``event`` are None where the trace could not be opened, and in an address that leaves them out.
    """

    trace_id: str
    device: int | None = None
    event: int | None = None

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Query:
        """Read what :meth:`data` wrote to the browser's store."""
        return cls(str(data["trace"]), data.get("device"), data.get("event"))

    def data(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return {"trace": self.trace_id, "device": self.device, "event": self.event}

    @classmethod
    def from_search(cls, search: str | None, store: TraceStore) -> Query:
        """Read an address's ``?trace=…&device=…&event=…``; what is missing or no number is left open."""
        fields = {name: values[-1] for name, values in parse_qs((search or "").lstrip("?")).items()}
        return cls(fields.get("trace", store.trace_ids[0]), _number(fields.get("device")), _number(fields.get("event")))

    def search(self) -> str:
        """As an address's search part."""
        fields = {name: value for name, value in self.data().items() if value is not None}
        return f"?{urlencode(fields)}"

    def analysis(self, store: TraceStore) -> Analysis:
        """The analysis of the trace."""
        return store.analysis(self.trace_id)

    def opinions(self, store: TraceStore) -> Opinions:
        """What is thought of the device that is looked at.

        Raises
        ------
        MemscopeError
            If the trace cannot be opened, or has no such device.
        """
        return store.analysis(self.trace_id).opinions(self.device)

    def moment(self, store: TraceStore) -> Moment:
        """The moment that is looked at.

        Raises
        ------
        MemscopeError
            If the trace cannot be opened, or has no such device or event.
        """
        analysis = store.analysis(self.trace_id)
        if self.device is None or self.event is None:
            raise UsageError("no moment is chosen: pick one on the strip at the bottom")
        return analysis.at(self.event, self.device)

    def resolved(self, store: TraceStore) -> Query:
        """The same with device and event filled in: the first device, and the peak of allocated memory.

        A device or event that the trace does not have, as an old address may name, is replaced in the same way.
        """
        analysis = store.analysis(self.trace_id)
        device = analysis.device(self.device if self.device in analysis.trace.devices else None)
        lifetimes = device.lifetimes
        low, high = lifetimes.first_event - 1, lifetimes.last_event
        event = self.event
        if event == low:
            event = NONE_ID
        if event is None or self.device != device.index or not (low <= event <= high or event == NONE_ID):
            event = device.usage.peak_event
        return Query(self.trace_id, device.index, event)


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
