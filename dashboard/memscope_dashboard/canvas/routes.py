"""Where the browser asks for what it draws: ``/canvas/run``, ``…/segments``, ``…/allocations`` and ``…/series``.

Each takes ``trace`` and ``device``, the latter two also the first and the last moment, ``low`` and ``high``. What is
wrong is said in one line, with the status 400.
"""

from __future__ import annotations

from collections.abc import Callable

from dash import Dash
from flask import Response, jsonify, request

from memscope.device.device import Device
from memscope.errors import MemscopeError, UsageError
from memscope_dashboard.canvas.allocations import packed_allocations
from memscope_dashboard.canvas.segments import packed_segments
from memscope_dashboard.canvas.series import packed_series, run_facts
from memscope_dashboard.query import Query
from memscope_dashboard.store import TraceStore


def _device(store: TraceStore) -> tuple[Query, Device]:
    trace_id, index = request.args.get("trace", ""), request.args.get("device", type=int)
    if index is None:
        raise UsageError("no device is named")
    return Query(trace_id, index), store.analysis(trace_id).device(index)


def _range(device: Device) -> tuple[int, int]:
    low, high = (request.args.get(name, type=int) for name in ("low", "high"))
    if low is None or high is None or not 0 <= low <= high <= device.n_events:
        raise UsageError(f"a range from {low} to {high}: moments are 0 to {device.n_events}")
    return low, high


def register_routes(app: Dash, store: TraceStore) -> None:
    """Add the addresses to an app."""

    def binary(pack: Callable[[Device, int, int], bytes]) -> Callable[[], Response]:
        def answer() -> Response:
            query, device = _device(store)
            low, high = _range(device)
            key = ("canvas", pack.__name__, query.trace_id, query.device, low, high)
            return Response(store.recent(key, lambda: pack(device, low, high)), mimetype="application/octet-stream")

        return answer

    def run() -> Response:
        query, device = _device(store)
        key = ("canvas-run", query.device)
        return jsonify(store.remembered(query.trace_id, key, lambda _analysis: run_facts(device)))

    def segments() -> Response:
        query, device = _device(store)
        key = ("canvas-segments", query.device)
        content = store.remembered(query.trace_id, key, lambda _analysis: packed_segments(device))
        return Response(content, mimetype="application/octet-stream")

    def refuse(error: MemscopeError) -> tuple[Response, int]:
        return jsonify({"error": str(error)}), 400

    def guarded(answer: Callable[[], Response]) -> Callable[[], Response | tuple[Response, int]]:
        def safe() -> Response | tuple[Response, int]:
            try:
                return answer()
            except MemscopeError as error:
                return refuse(error)

        return safe

    answers = {
        "run": run,
        "segments": segments,
        "allocations": binary(packed_allocations),
        "series": binary(packed_series),
    }
    for name, answer in answers.items():
        app.server.add_url_rule(f"/canvas/{name}", f"canvas-{name}", guarded(answer))
