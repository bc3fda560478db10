"""CUDA's answers about its devices, as each test sets them."""

from __future__ import annotations

import pytest

from tests.capture.driver_usage.fake_nvml import FakeCuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    pytest.importorskip("torch")
    return FakeCuda(monkeypatch)
