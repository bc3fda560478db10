"""``memscope.record``: its arguments, its file, its trace, and ranks that do not record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import memscope
import memscope.analysis
from memscope.errors import CaptureError, UsageError
from memscope.trace.categories import Category
from memscope.trace.container import read_container
from memscope.trace.schema import Action, MarkKind
from tests.capture.programs import dry_run, requested, sizes, small_model, train

torch = pytest.importorskip("torch")


def test_a_recording_writes_its_file_and_keeps_its_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    with memscope.record(path, backend="dry-run", gpu="24GiB", conf="expandable_segments:True") as rec:
        train(small_model(), steps=1)
        rec.step()
    trace = read_container(path)
    assert trace.metadata == rec.trace.metadata
    assert trace.action.tolist() == rec.trace.action.tolist()
    assert trace.metadata.source == "dry-run"
    assert trace.metadata.alloc_conf == "expandable_segments:True"
    assert trace.metadata.device_total_bytes == {0: 24 << 30}


def test_an_existing_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    path.write_text("kept")
    with pytest.raises(UsageError, match="exists already"):
        memscope.record(path, backend="dry-run")
    assert path.read_text() == "kept"


def test_a_failing_program_leaves_its_trace(tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    with pytest.raises(torch.OutOfMemoryError), memscope.record(path, backend="dry-run", gpu="1GiB"):
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    assert read_container(path).n_events == 1


def test_as_a_decorator_it_records_every_call(tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"

    @memscope.record(path, backend="dry-run")
    def work(n: int) -> int:
        return int(torch.zeros(n, device="cuda").numel())

    assert (work(10), work(300), work(600)) == (10, 300, 600)
    for name, size in (("run", 40), ("run-2", 1200), ("run-3", 2400)):
        trace = read_container(tmp_path / f"{name}.memscope")
        assert sizes(trace, Action.ALLOC) == [size]


def test_a_forked_child_leaves_the_parents_recording_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    program = f"""
import os, torch, memscope
recorder = memscope.record({str(path)!r}, backend="dry-run")
with recorder:
    kept = torch.ones(1000, device="cuda")
    child = os.fork()
    if not child:
        os.sched_yield()
    else:
        os.waitpid(child, 0)
        more = torch.ones(3000, device="cuda")
print(recorder.records_here, recorder.path is not None)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["False False", "True True"]
    assert sizes(read_container(path), Action.ALLOC) == [4000, 12_000]


def test_start_and_stop_do_without_a_block() -> None:
    rec = dry_run()
    with pytest.raises(UsageError, match="has not begun"):
        rec.step()
    rec.start()
    with pytest.raises(UsageError, match="when the recording has ended"):
        _ = rec.trace
    assert rec.stop() is rec.trace
    assert rec.stop() is rec.trace


def test_one_recording_at_a_time() -> None:
    with dry_run(), pytest.raises(CaptureError, match="under way"):
        dry_run().start()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("backend", ["auto", "cuda"])
def test_without_a_gpu_it_says_what_to_do(backend: str) -> None:
    with pytest.raises(CaptureError, match="backend='dry-run'"):
        dry_run(backend=backend, conf=None).start()


def test_arguments_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(UsageError, match="backend 'gpu'"):
        dry_run(backend="gpu")
    with pytest.raises(UsageError, match="stacks 'every'"):
        dry_run(stacks="every")
    with pytest.raises(UsageError, match="max_host_bytes=10 is too few"):
        dry_run(max_host_bytes=10)
    with pytest.raises(UsageError, match="stacks='all' and device are for CUDA"):
        dry_run(stacks="all").start()
    with pytest.raises(UsageError, match="stacks='all' and device are for CUDA"):
        dry_run(device=0).start()
    with pytest.raises(UsageError, match="conf is for a dry run"):
        dry_run(backend="cuda").start()


def test_steps_and_phases_are_marked_where_they_happened() -> None:
    with dry_run() as rec:
        with rec.phase("load"):
            kept = torch.zeros(3, device="cuda")
        rec.step("first")
        rec.step()
    marks = rec.trace.marks
    assert [rec.trace.strings[label] for label in marks.label_id] == ["load", "load", "first", "1"]
    assert marks.kind.tolist() == [MarkKind.PHASE_BEGIN, MarkKind.PHASE_END, MarkKind.STEP, MarkKind.STEP]
    assert marks.event.tolist() == [0, 2, 2, 2]
    assert len(kept) == 3


def test_a_model_given_is_named_though_it_is_never_called() -> None:
    with dry_run() as rec:
        model = small_model()
        rec.backend.know(model, None)
    assert "0.weight" in requested(rec.trace, Category.WEIGHTS)


def test_a_snapshot_is_the_trace_until_then_and_changes_nothing_of_the_end(tmp_path: Path) -> None:
    def work(recorder: memscope.record, *, takes_snapshot: bool) -> None:
        kept = torch.zeros(1 << 20, device="cuda")
        with recorder.phase("load"):
            more = torch.zeros(3 << 20, device="cuda")
            if takes_snapshot:
                recorder.snapshot(tmp_path / "now.memscope")
        del kept
        assert more.numel()

    with dry_run() as plain:
        work(plain, takes_snapshot=False)
    with dry_run() as watched:
        work(watched, takes_snapshot=True)
    now = read_container(tmp_path / "now.memscope")
    n_now = now.n_events
    assert now.action.tolist() == plain.trace.action[:n_now].tolist()
    assert memscope.analysis.Analysis(now).end().allocated_bytes == 16 << 20
    assert [now.strings[label] for label in now.marks.label_id] == ["load"]
    assert watched.trace.action.tolist() == plain.trace.action.tolist()
    assert watched.trace.marks.event.tolist() == plain.trace.marks.event.tolist()
    assert watched.trace.blocks.address.tolist() == plain.trace.blocks.address.tolist()
    with pytest.raises(UsageError, match="under way"):
        watched.snapshot()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no notes")
def test_an_error_that_leaves_the_block_says_where_the_trace_is(tmp_path: Path) -> None:
    path = tmp_path / "run.memscope"
    with pytest.raises(torch.OutOfMemoryError) as caught, memscope.record(path, backend="dry-run", gpu="1GiB"):
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    (kept,) = tmp_path.glob("run-oom-*.memscope")
    assert [str(kept) in note for note in caught.value.__notes__] == [True]
    assert read_container(kept).n_events == read_container(path).n_events == 1


def test_each_rank_writes_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with memscope.record(tmp_path / "run.memscope", backend="dry-run") as rec:
        torch.zeros(1, device="cuda")
    assert rec.path == tmp_path / "run-rank3.memscope"
    assert read_container(tmp_path / "run-rank3.memscope").metadata.rank == 3


def test_the_environment_names_the_file_and_the_ranks_that_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MEMSCOPE_OUT", str(tmp_path))
    monkeypatch.setenv("MEMSCOPE_RANKS", "0,2-3")
    with memscope.record("run.memscope", backend="cuda") as left_out, memscope.tag("kv_cache"):
        left_out.step()
        with left_out.phase("load"):
            pass
    assert left_out.stop() is None
    assert not left_out.records_here
    assert left_out.path is None
    with pytest.raises(UsageError, match="rank 1 does not record: MEMSCOPE_RANKS leaves it out"):
        _ = left_out.trace
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("RANK", "2")
    with memscope.record("run.memscope", backend="dry-run"):
        torch.zeros(1, device="cuda")
    assert [path.name for path in tmp_path.iterdir()] == ["run-rank2.memscope"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no notes")
def test_a_verdict_that_fails_does_not_take_the_place_of_the_programs_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(memscope.analysis.Analysis, "oom", fails)
    path = tmp_path / "run.memscope"
    with pytest.raises(torch.OutOfMemoryError) as caught, memscope.record(path, backend="dry-run", gpu="1GiB"):
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    assert ["why cannot be told (a defect)" in note for note in caught.value.__notes__] == [True]
