"""Traces that findings are looked for in."""

from __future__ import annotations

from pathlib import Path

from memscope.analysis import Analysis
from memscope.findings.finding import Finding, Findings
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.replay.recordings import Recorder

MiB = 1 << 20
SHIPPED = Path(__file__).resolve().parents[2] / "traces"


def analysed(recorder: Recorder) -> Analysis:
    return Analysis(recorder.trace())


def kinds(findings: Findings) -> list[str]:
    return [finding.kind for finding in findings.findings]


def of_kind(findings: Findings, kind: str) -> list[Finding]:
    return [finding for finding in findings.findings if finding.kind == kind]


def fragmented(n_pairs: int = 40) -> Recorder:
    """Segments of 20 MiB, in each of which 4 MiB stay live when 30 MiB more are taken."""
    recorder = Recorder()
    pairs = [(recorder.allocator.malloc(2 * MiB), recorder.allocator.malloc(8 * MiB)) for _ in range(n_pairs)]
    for _, large in pairs:
        recorder.allocator.free(large)
    recorder.allocator.malloc(30 * MiB)
    return recorder


def layers_that_stay(category: Category, *, uses: bool, n_temporaries: int = 1) -> Trace:
    """Forty layers of one size made one after the other, each with a stack and temporaries; used or not."""
    builder = TraceBuilder()
    stacks = builder.stacks
    made = stacks.stack([stacks.frame("make_layer", "/home/user/serve.py", 7)])
    used = stacks.stack([stacks.frame("work", "/home/user/serve.py", 9)])
    for layer in range(40):
        address = (1 << 40) + layer * (64 << 20)
        kept = builder.add_event(Action.ALLOC, address=address, size_bytes=16 << 20, stack_id=made)
        builder.set_owner(kept, category, f"layer {layer}")
        temporary = address + (16 << 20)
        for _ in range(n_temporaries):
            born = builder.add_event(Action.ALLOC, address=temporary, size_bytes=8 << 20, stack_id=used)
            if uses:
                builder.set_owner(born, Category.ACTIVATIONS, "hidden states")
            builder.add_event(Action.FREE_COMPLETED, address=temporary, size_bytes=8 << 20, stack_id=used)
        segment = builder.add_segment(address=address, size_bytes=24 << 20, is_large=True)
        builder.add_block(segment, address=address, size_bytes=16 << 20, requested_bytes=16 << 20, state=0)
        builder.add_block(segment, address=temporary, size_bytes=8 << 20, requested_bytes=0, state=2)
    return builder.build(TraceMetadata(source="synthetic", has_segment_events=False))
