"""``memscope doctor``."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Outcome

Run = Callable[..., Outcome]


def test_doctor_says_what_works_here(memscope: Run) -> None:
    diagnosis = json.loads(memscope("doctor", "--json").out)
    assert diagnosis["can_read_traces"] is True
    names = [check["name"] for check in diagnosis["checks"]]
    assert names[:2] == ["memscope", "torch"]
    assert all(check["status"] in ("ok", "info", "warning", "missing") for check in diagnosis["checks"])
    text = memscope("doctor").out
    assert "read traces and snapshots" in text


def test_doctor_warns_of_two_configurations(memscope: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    checks = {check["name"]: check for check in json.loads(memscope("doctor", "--json").out)["checks"]}
    assert checks["allocator settings"]["status"] == "warning"
    assert "both are set" in checks["allocator settings"]["advice"]
