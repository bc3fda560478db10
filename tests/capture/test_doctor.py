"""What this machine can record, as asked of the real thing."""

from __future__ import annotations

import pytest

from memscope.capture import doctor
from memscope.capture.doctor import Check, diagnose


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_traces_can_always_be_read_and_a_dry_run_wants_torch() -> None:
    diagnosis = diagnose()
    assert diagnosis.can_read_traces
    assert diagnosis.can_dry_run == (by_name(diagnosis.checks)["torch"].status != "missing")


def test_without_torch_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.util, "find_spec", lambda _: None)
    diagnosis = diagnose()
    assert (diagnosis.can_dry_run, diagnosis.can_record_cuda) == (False, False)
    assert "pip install 'torch-memscope[torch]'" in by_name(diagnosis.checks)["torch"].advice


def test_without_dash_text_answers_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    assert doctor._dash().status == "missing"
    assert "pip install 'torch-memscope[dash]'" in doctor._dash().advice


def test_allocator_settings_in_both_variables_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    assert doctor._allocator_conf() == Check("allocator settings", "ok", "default")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:native")
    assert doctor._allocator_conf().status == "info"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    both = doctor._allocator_conf()
    assert both.status == "warning"
    assert both.finding == "PYTORCH_ALLOC_CONF=backend:native, PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:64"
