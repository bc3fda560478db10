"""The timeline by Perfetto's own definition of such events: every field is one of its, of its type, and survives it.

Perfetto's trace processor, which would read the file itself, is no part of its package: it is downloaded at first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memscope.analysis import Analysis, load
from tests.export.test_timeline import carried, written
from tests.training_trace import training_trace

perfetto = pytest.importorskip(
    "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="pip install perfetto, for its definitions"
)

SHIPPED = Path(__file__).parents[2] / "traces"
FIELDS = {
    "name": "name",
    "ts": "timestamp",
    "dur": "duration",
    "pid": "process_id",
    "tid": "thread_id",
    "cat": "category_group_name",
    "id": "id",
}
"""Keys of Chrome's JSON, and the fields of Perfetto's ``ChromeTraceEvent`` that stand for them."""
MICROSECOND = 1_000


def bundle_of(content: dict[str, Any]) -> Any:
    """The events as a message, written to its bytes and read back. A field of another type, or unknown, is an error."""
    bundle, ids = perfetto.ChromeEventBundle(), dict[str, int]()
    for event in content["traceEvents"]:
        message = bundle.trace_events.add(phase=ord(event["ph"]))
        for key, value in event.items():
            if key == "args":
                for name, argument in value.items():
                    message.args.add(name=name, **argument_of(argument))
            elif key in ("ts", "dur"):
                # Its times are whole; ours have three decimals, which are nanoseconds.
                nanoseconds = round(value * MICROSECOND)
                assert abs(nanoseconds - value * MICROSECOND) < 1e-2
                setattr(message, FIELDS[key], nanoseconds)
            elif key == "id":
                # Chrome's JSON has texts, which tell allocations apart; the message has numbers.
                message.id = ids.setdefault(value, len(ids) + 1)
            elif key != "ph":
                setattr(message, FIELDS[key], value)
    found = perfetto.ChromeEventBundle()
    found.ParseFromString(bundle.SerializeToString())
    return found


def argument_of(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        return {"int_value": value}
    return {"json_value": "null"} if value is None else {"string_value": value}


@pytest.mark.parametrize("name", ["tiny-llama-train", "tiny-gpt2-generate", "tiny-out-of-memory"])
def test_counters_read_back_are_the_series(name: str) -> None:
    analysis = load(SHIPPED / f"{name}.memscope")
    device, found = analysis.device(), bundle_of(written(analysis))
    times = np.asarray(analysis.trace.time_ns)
    times = times - times[0]
    last = np.append(times[1:] != times[:-1], True)
    series = {"allocated": device.usage.allocated_bytes, "reserved": device.usage.reserved_bytes}
    series |= {category.label: values for category, values in device.category_usage.items()}
    for label, values in series.items():
        assert values is not None
        changes = [
            (event.timestamp, event.args[0].int_value)
            for event in found.trace_events
            if event.phase == ord("C") and event.name == label
        ]
        assert carried(changes, times[last]) == values[1:][last].tolist(), label


def test_every_event_keeps_its_fields() -> None:
    content = written(Analysis(training_trace()))
    found = bundle_of(content).trace_events
    assert len(found) == len(content["traceEvents"])
    for event, message in zip(content["traceEvents"], found, strict=True):
        assert (chr(message.phase), message.name, message.process_id) == (event["ph"], event["name"], event["pid"])
        assert message.thread_id == event.get("tid", 0)
        assert [argument.name for argument in message.args] == list(event.get("args", {}))
