from __future__ import annotations

import pytest

from memscope.errors import UsageError
from memscope.gpus import find_gpu, find_usable_gpu, gpu_names
from memscope.units import GiB, MiB


def test_every_name_in_the_catalogue_is_found_and_sorted() -> None:
    assert gpu_names() == sorted(gpu_names())
    for name in gpu_names():
        gpu = find_gpu(name)
        assert gpu.name == name
        assert 0 < gpu.context_bytes < gpu.usable_bytes < gpu.total_bytes
        nominal_gb = int(name.rsplit("-", 1)[1].removesuffix("GB"))
        assert 0.9 * nominal_gb * 10**9 < gpu.total_bytes <= 1.08 * nominal_gb * 10**9


def test_names_are_read_loosely() -> None:
    assert find_gpu("h100-80gb") == find_gpu(" H100_80GB ") == find_gpu("H100")


def test_a_size_stands_for_a_device_of_that_size() -> None:
    gpu = find_gpu("24GiB")
    assert (gpu.total_bytes, gpu.usable_bytes) == (24 * GiB, 24 * GiB - 512 * MiB)


def test_unknown_and_ambiguous_names_list_the_catalogue() -> None:
    with pytest.raises(UsageError, match=r"not a known GPU.*H100-80GB"):
        find_gpu("GTX9999")
    with pytest.raises(UsageError, match=r"fits several.*A100-40GB, A100-80GB"):
        find_gpu("A100")


def test_library_workspaces_depend_on_the_architecture() -> None:
    assert find_gpu("A100-80GB").cublas_workspace_bytes == 8_519_680
    assert find_gpu("H100-80GB").cublas_workspace_bytes == 32 * MiB


@pytest.mark.parametrize("size", ["300MiB", "512MiB", "1"])
def test_a_size_of_which_the_context_leaves_nothing_is_refused(size: str) -> None:
    with pytest.raises(UsageError, match=f"{size}: PyTorch can have nothing of a card of that size.*512.0 MiB"):
        find_usable_gpu(size)
    assert find_usable_gpu("513MiB").usable_bytes == MiB
