"""Streams, CUDA graphs and memory pools of a dry run."""

from __future__ import annotations

import pytest

from memscope.trace.schema import Action
from memscope.trace.trace import Trace
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")
MiB = 1 << 20


def placed(trace: Trace) -> list[tuple[int, tuple[int, int]]]:
    """Stream and pool of each allocation."""
    rows = trace.action == Action.ALLOC
    streams = trace.stream_handles[trace.stream_id[rows]].tolist()
    return [(stream, tuple(trace.pools[pool])) for stream, pool in zip(streams, trace.pool_id[rows], strict=True)]


def test_what_is_made_on_a_side_stream_lies_in_its_own_pool() -> None:
    with dry_run() as rec:
        stream = torch.cuda.Stream()
        kept = [torch.empty(MiB, device="cuda")]
        with torch.cuda.stream(stream):
            assert torch.cuda.current_stream() == stream != torch.cuda.default_stream()
            kept.append(torch.empty(MiB, device="cuda"))
        with stream:
            kept.append(torch.empty(MiB, device="cuda"))
        kept.append(torch.empty(MiB, device="cuda"))
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
    handle = stream.cuda_stream
    assert [stream for stream, _ in placed(rec.trace)] == [0, handle, handle, 0]
    assert handle != 0


def test_memory_that_another_stream_used_is_reused_only_after_it_is_done() -> None:
    def addresses(*, recorded: bool) -> list[int]:
        with dry_run() as rec:
            tensor = torch.empty(4 * MiB, dtype=torch.uint8, device="cuda")
            if recorded:
                tensor.record_stream(torch.cuda.Stream())
            del tensor
            kept = torch.empty(4 * MiB, dtype=torch.uint8, device="cuda")
            trace = rec.snapshot()
            del kept
        frees = (Action.FREE_REQUESTED, Action.FREE_COMPLETED)
        return [int(action) for action in trace.action if action in (*frees, Action.ALLOC)]

    plain = [Action.ALLOC, Action.FREE_REQUESTED, Action.FREE_COMPLETED, Action.ALLOC]
    assert addresses(recorded=False) == addresses(recorded=True) == plain


def test_a_graphs_memory_lies_in_its_pool_until_the_graph_is_gone() -> None:
    with dry_run() as rec:
        pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            inside = torch.ones(MiB, device="cuda") * 2
        graph.replay()
        outside = torch.ones(8, device="cuda")
        assert graph.pool() == pool
        del inside
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved()
        graph.reset()
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() < held
        assert outside.shape == (8,)
    pools = [pool_id for _, pool_id in placed(rec.trace)]
    assert pools[0] == pools[1] == pool
    assert pools[-1] == (0, 0)


def test_a_memory_pool_serves_what_is_made_in_it() -> None:
    with dry_run() as rec:
        pool = torch.cuda.MemPool()
        with torch.cuda.use_mem_pool(pool):
            inside = torch.empty(MiB, device="cuda")
        outside = torch.empty(MiB, device="cuda")
        assert pool.use_count() >= 1
        assert inside.shape == outside.shape
        identity = pool.id
    assert [where for _, where in placed(rec.trace)] == [identity, (0, 0)]


def test_a_second_device_is_refused_rather_than_taken_for_the_first() -> None:
    with dry_run():
        for use in (
            lambda: torch.ones(3, device="cuda:1"),
            lambda: torch.ones(3).to("cuda:1"),
            lambda: torch.ones(3).cuda(1),
            lambda: torch.cuda.set_device(1),
        ):
            with pytest.raises(RuntimeError, match="invalid device ordinal"):
                use()
