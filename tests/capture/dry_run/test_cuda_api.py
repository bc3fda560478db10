"""What ``torch.cuda`` says and does in a dry run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.trace.schema import Action
from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")
MiB = 1 << 20


def test_the_programs_own_snapshot_is_that_of_the_simulated_allocator(tmp_path: Path) -> None:
    path = tmp_path / "own.pickle"
    with dry_run() as rec:
        torch.cuda.memory._record_memory_history(max_entries=100_000)
        kept = torch.ones(1024, 1024, device="cuda")
        kept = kept @ kept
        torch.cuda.memory._dump_snapshot(str(path))
        snapshot = torch.cuda.memory._snapshot()
        segments = torch.cuda.memory_snapshot()
        reserved = torch.cuda.memory_reserved()
    assert sum(segment["total_size"] for segment in segments) == reserved
    assert [segment["address"] for segment in snapshot["segments"]] == [segment["address"] for segment in segments]
    assert pickle.loads(path.read_bytes())["segments"] == snapshot["segments"]
    analysis = load(path)
    assert analysis.peak().reserved_bytes == reserved
    assert len(analysis.trace) <= len(rec.trace)


def test_settings_that_a_program_makes_before_its_first_allocation_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    with dry_run() as rec:
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
        torch.zeros(3 << 20, dtype=torch.uint8, device="cuda")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    assert np_count(rec.trace.action == Action.SEGMENT_MAP) == 1
    assert rec.trace.metadata.alloc_conf == "expandable_segments:True"
    with dry_run() as rec:
        torch.cuda.memory._set_allocator_settings("expandable_segments:True")
        torch.zeros(3 << 20, dtype=torch.uint8, device="cuda")
    assert np_count(rec.trace.action == Action.SEGMENT_MAP) == 1


def np_count(rows: object) -> int:
    return int(sum(bool(row) for row in rows))  # type: ignore[attr-defined]


def test_settings_that_change_while_memory_is_in_use_are_said_not_to_be_followed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with dry_run() as rec:
        torch.zeros(3 << 20, dtype=torch.uint8, device="cuda")
        torch.cuda.memory._set_allocator_settings("expandable_segments:True")
        assert "goes on with those before" in capsys.readouterr().err
    assert any("not followed" in note for note in rec.trace.metadata.notes)


def test_a_share_of_the_device_that_a_program_gives_itself_is_its_limit() -> None:
    with dry_run(gpu="1GiB") as rec:
        torch.cuda.set_per_process_memory_fraction(0.25)
        kept = torch.empty(200 * MiB, dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(100 * MiB, dtype=torch.uint8, device="cuda")
        assert torch.cuda.get_per_process_memory_fraction() == 0.25
        with pytest.raises(ValueError, match="Invalid fraction"):
            torch.cuda.set_per_process_memory_fraction(2.0)
        assert kept.numel()
    assert rec.trace.metadata.memory_fraction == {0: 0.25}


def test_observers_are_told_when_memory_runs_out() -> None:
    seen = []
    with dry_run(gpu="1GiB"):
        torch._C._cuda_attach_out_of_memory_observer(lambda *told: seen.append(told))
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    assert seen == [(0, 1 << 30, 0, 512 * MiB)]


def test_what_programs_call_on_their_way_works() -> None:
    with dry_run():
        torch.cuda.nvtx.range_push("forward")
        torch.cuda.nvtx.range_pop()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        end.record()
        assert 0 < start.elapsed_time(end) < 60_000
        assert not torch.allclose(torch.randn(3, device="cuda"), torch.randn(3, device="cuda"))
        assert torch.cuda.FloatTensor(2, 3).shape == (2, 3)
        assert torch.cuda.LongTensor([1, 2]).tolist() == [1, 2]
        assert torch.cuda.get_device_properties(0).L2_cache_size > 0
        assert torch._C._cuda_getCurrentRawStream(0) == 0
    assert not hasattr(torch._C, "_cuda_getCurrentRawStream")


def test_a_loss_is_formatted_and_taken_for_finite(capsys: pytest.CaptureFixture[str]) -> None:
    with dry_run():
        weight = torch.randn(64, 64, device="cuda", requires_grad=True)
        loss = (weight @ weight).mean()
        assert torch.isfinite(loss)
        assert not loss.isnan()
        assert torch.isfinite(weight @ weight).all()
        big = torch.randn(1024, 1024, device="cuda")
        assert torch.isfinite(big).all()
        assert not torch.isnan(big).any()
        assert capsys.readouterr().err == ""
        assert f"{loss:.3f}" == "1.000"
        said = capsys.readouterr().err
        assert loss.item() == 1.0
        assert capsys.readouterr().err == ""
    assert "test_cuda_api.py" in said
    assert "it gets 1.0" in said
