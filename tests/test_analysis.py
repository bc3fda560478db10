"""What ``memscope.load`` gives: moments, and who is live in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import memscope
from memscope.analysis import Analysis
from memscope.errors import UsageError
from memscope.trace.builder import TraceBuilder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from tests.conftest import Outcome
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def test_the_readme_example_works(tmp_path: Path) -> None:
    path = write_container(training_trace(), tmp_path / "run.memscope")
    trace = memscope.load(path)
    frame = trace.peak().by_category()
    assert list(frame.columns) == ["requested_bytes", "block_bytes", "n_allocations"]
    assert {"weights", "activations"} <= set(frame.index)
    assert sum(row.bytes for row in trace.peak().ledger.rows) == trace.peak().reserved_bytes
    assert trace.device(0).peak().event == trace.peak().event
    assert not trace.kv_lens()


def test_an_empty_trace_has_no_device_to_ask_for() -> None:
    empty = Analysis(TraceBuilder().build(TraceMetadata(source="synthetic")))
    with pytest.raises(UsageError, match="empty"):
        empty.peak()


def test_a_device_that_the_trace_does_not_have_is_named_with_those_it_has(analysis: Analysis) -> None:
    with pytest.raises(UsageError, match=r"device 7 is not in this trace \(it has 0\)"):
        analysis.device(7)


def test_without_a_device_a_moment_is_that_of_its_event(analysis: Analysis) -> None:
    assert analysis.at(3).device is analysis.device(0)
    assert analysis.peak().event == analysis.device(0).peak().event


def test_opinions_are_formed_once(analysis: Analysis) -> None:
    opinions = analysis.opinions()
    assert opinions.device is analysis.device()
    assert opinions.findings is analysis.findings(0)
    assert opinions.kv_lens is analysis.kv_lens(0)
    assert opinions.oom(searches=False) is analysis.oom(searches=False)


def test_the_device_that_ran_out_of_memory_is_meant_where_none_is_named() -> None:
    builder = TraceBuilder()
    for device in (0, 1, 2):
        builder.add_event(Action.ALLOC, address=1 << 40, size_bytes=1 << 20, device=device)
        if device == 1:
            builder.add_event(Action.OOM, address=-1, size_bytes=1 << 30, device=device)
    analysis = Analysis(builder.build(TraceMetadata(source="synthetic")))
    assert analysis.device().index == analysis.peak().device.index == analysis.oom().device == 1
    assert analysis.device(2).index == 2
    assert analysis.device_of_event(0).index == 0


def on_devices(*failing: bool, is_idle: bool = False) -> TraceBuilder:
    """A segment of 2 MiB with 1 MiB in use on each of some devices, some of which then run out of memory."""
    builder = TraceBuilder()
    for device, fails in enumerate(failing):
        address = (1 << 40) + (device << 30)
        if not (is_idle and device):
            builder.add_event(Action.SEGMENT_ALLOC, address=address, size_bytes=2 << 20, device=device)
            builder.add_event(Action.ALLOC, address=address, size_bytes=1 << 20, device=device)
        if fails:
            builder.add_event(Action.OOM, address=-1, size_bytes=1 << 30, device=device)
        segment = builder.add_segment(address=address, size_bytes=2 << 20, is_large=False, device=device)
        half = {"size_bytes": 1 << 20, "state": 0}
        builder.add_block(segment, address=address, requested_bytes=1 << 20, **half)
        builder.add_block(segment, address=address + (1 << 20), requested_bytes=0, **half | {"state": 2})
    return builder


def test_a_question_is_about_the_device_that_ran_out_of_memory_or_else_about_each() -> None:
    def asked(builder: TraceBuilder, index: int | None = None, event: int | None = None) -> list[int]:
        analysis = Analysis(builder.build(TraceMetadata(source="synthetic")))
        return [device.index for device in analysis.devices_asked(index, event)]

    assert asked(on_devices(False, False)) == [0, 1]
    assert asked(on_devices(False, True)) == [1]
    assert asked(on_devices(False, False), index=1) == [1]
    assert asked(on_devices(False, False), event=3) == [1]
    assert asked(on_devices(False, False, is_idle=True)) == [0]
    with pytest.raises(UsageError, match="empty"):
        asked(TraceBuilder())


@pytest.mark.parametrize("verb", ["peak", "frag", "tune", "replay"])
def test_a_verb_answers_for_each_device(verb: str, tmp_path: Path, memscope: Callable[..., Outcome]) -> None:
    path = write_container(on_devices(False, False).build(TraceMetadata(source="synthetic")), tmp_path / "two.memscope")
    outcome = memscope(verb, str(path))
    assert outcome.code == 0, outcome.err
    assert [outcome.out.lower().count(f"device {device}") for device in (0, 1)] == [1, 1]
    found = json.loads(memscope(verb, str(path), "--json").out)
    assert (found["device"], [other["device"] for other in found["other_devices"]]) == (0, [1])
    assert "other_devices" not in json.loads(memscope(verb, str(path), "--device", "1", "--json").out)


def test_a_verdict_names_the_leak_that_filled_the_device() -> None:
    torch = pytest.importorskip("torch")
    from memscope.capture.recorder import Recorder

    kept = []

    def evaluate() -> None:
        model = torch.nn.Linear(64, 1 << 20).to("cuda")
        for _ in range(100):
            with torch.no_grad():
                output = model(torch.randn(256, 64).to("cuda"))
            kept.append(output)

    recorder = Recorder(backend="dry-run", gpu="A100-40GB", conf="")
    with recorder, pytest.raises(torch.cuda.OutOfMemoryError):
        evaluate()
    analysis = Analysis(recorder.trace)
    (leak,) = (one for one in analysis.findings(0).findings if one.kind == "leak")
    verdict = analysis.oom(0)
    assert verdict.evidence[0].startswith(
        "what grew until then: leak: 1.0 GiB more is kept after each step, allocated at"
    )
    assert "test_analysis.py" in verdict.evidence[0]
    assert leak.held_bytes > 30 << 30
    assert verdict.counterfactual is not None
    assert verdict.counterfactual.kind == "kept"
    assert leak.sites[0] in verdict.counterfactual.text
    assert analysis.oom(0, searches=False).counterfactual is None
