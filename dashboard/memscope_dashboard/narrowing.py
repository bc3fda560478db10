"""A call or a module that the allocations are narrowed to: chosen in the flame graph, kept by the browser as ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from memscope.attribution.call_tree import rows_below_call, rows_below_module
from memscope.attribution.sites import own_frames
from memscope.device.device import Moment
from memscope.figures.flames.flame import FlameKind, Key, path_label
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int64Array
from memscope.trace.trace import Trace
from memscope_dashboard.query import Query


@dataclass(frozen=True, slots=True)
class Narrowing:
    """A path in the tree of calls (frame ids, outermost first) or of modules (names).

    ``own_only`` says whether the frames of libraries were passed over.
    """

    kind: FlameKind
    path: tuple[Key, ...]
    own_only: bool

    @classmethod
    def from_data(cls, data: dict[str, Any] | None, query: Query, trace: Trace) -> Narrowing | None:
        """Read what :meth:`data` wrote; None if nothing is chosen, or it is another trace's or device's."""
        if not data or (data.get("trace"), data.get("device")) != (query.trace_id, query.device) or not data["path"]:
            return None
        kind = FlameKind(data["kind"])
        if kind is FlameKind.MODULES:
            return cls(kind, tuple(str(name) for name in data["path"]), own_only=False)
        path = tuple(int(frame_id) for frame_id in data["path"])
        n_frames = trace.stacks.n_frames
        known = path == (NONE_ID,) or all(0 <= frame_id < n_frames for frame_id in path)
        return cls(kind, path, own_only=bool(data["own"])) if known else None

    def data(self, query: Query) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return {
            "trace": query.trace_id,
            "device": query.device,
            "kind": self.kind.value,
            "path": list(self.path),
            "own": self.own_only,
        }

    def label(self, trace: Trace) -> str:
        """What it is called: ``forward (model.py:12)`` or ``model.layers.3``."""
        return path_label(trace, self.kind, self.path)

    def among(self, moment: Moment, rows: Int64Array) -> BoolArray:
        """Which of some allocations lie in it: bool (rows,)."""
        trace = moment.device.trace
        if self.kind is FlameKind.MODULES:
            owner_id = moment.device.attribution.owner_id[rows]
            return rows_below_module(trace, owner_id, ".".join(map(str, self.path)))
        frames = own_frames(trace) if self.own_only else None
        path = [int(key) for key in self.path]
        return rows_below_call(trace, moment.lifetimes.allocations.stack_id[rows], path, frames)

    def rows(self, moment: Moment) -> Int64Array:
        """The allocations in it that are in use at a moment, largest first."""
        found: Int64Array = moment.in_use_rows[self.among(moment, moment.in_use_rows)]
        return found
