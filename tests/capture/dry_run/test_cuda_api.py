"""What ``torch.cuda`` answers in a dry run."""

from __future__ import annotations

import pytest

from tests.capture.programs import dry_run

torch = pytest.importorskip("torch")


def test_the_simulated_device_answers_questions() -> None:
    with dry_run(gpu="H100-80GB"):
        assert torch.cuda.is_available()
        assert torch.cuda.device_count() == 1
        assert torch.cuda.get_device_name() == "NVIDIA H100 80GB HBM3"
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        assert 0 < free_bytes < total_bytes == torch.cuda.get_device_properties(0).total_memory
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            tensor = torch.rand(3, device="cuda", generator=torch.Generator(device="cuda").manual_seed(1))
        torch.cuda.reset_peak_memory_stats()
        del tensor
        assert (torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()) == (0, 512)
        assert torch.cuda.memory_reserved() == 2 << 20
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() == 0
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            torch.zeros(1, device="cuda:1")
