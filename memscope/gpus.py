"""The GPU catalogue: how much memory a device has, and what of it PyTorch never gets.

Totals are what drivers report as the device's total (``cudaMemGetInfo``, which is what the caching allocator lives
with), to the MiB; those of A100-40GB, B200, H100, H200, L40S, RTX4090 and T4 were found in published logs of real runs,
the others are typical values, and where only the advertised size is known it stands there, marked ``is_nominal``.
Drivers differ by some MiB in what they reserve (an H100 80GB HBM3 is reported with 81,082 to 81,090 MiB): give a size
such as ``79.1GiB`` to be exact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from memscope.errors import UnknownNameError, UsageError
from memscope.units import GiB, MiB, format_bytes, parse_bytes

DEFAULT_GPU = "H100-80GB"
_SIZE_TEXT = re.compile(r"\s*\d")
_HOPPER = (9, 0)


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One kind of GPU.

    Attributes
    ----------
    name
        The catalogue's name, ``H100-80GB``.
    device_name
        What ``torch.cuda.get_device_name()`` says.
    total_bytes
        Memory that the driver reports.
    capability
        Compute capability, (major, minor).
    n_multiprocessors
        Streaming multiprocessors.
    context_bytes
        Modelled: memory that the CUDA context and loaded kernels take, so that PyTorch never gets it.
    is_nominal
        Whether ``total_bytes`` is the advertised size rather than a reported one.
    """

    name: str
    device_name: str
    total_bytes: int
    capability: tuple[int, int]
    n_multiprocessors: int
    context_bytes: int = 512 * MiB
    is_nominal: bool = False

    @property
    def usable_bytes(self) -> int:
        """Memory that PyTorch can get: the total less the modelled context."""
        return self.total_bytes - self.context_bytes

    @property
    def cublas_workspace_bytes(self) -> int:
        """Default cuBLAS workspace: 32 MiB on Hopper, ``:4096:2:16:8`` (8,519,680 bytes) elsewhere.

        Source: ``aten/src/ATen/cuda/CublasHandlePool.cpp``, ``parseChosenWorkspaceSize``, read at 2.11.
        """
        return 32 * MiB if self.capability == _HOPPER else (2 * 4096 + 8 * 16) * 1024

    @property
    def cublaslt_workspace_bytes(self) -> int:
        """Default cuBLASLt workspace, for products with a bias: 1 MiB, on Hopper too.

        Source: histories that torch 2.11 recorded for compute capabilities 8.0 and 9.0. (2.15 takes it at each such
        product, and gives it back.)
        """
        return MiB


def _mib(n: int) -> int:
    return n * MiB


def _nominal(
    name: str, device_name: str, gigabytes: int, capability: tuple[int, int], n_multiprocessors: int
) -> GpuModel:
    return GpuModel(name, device_name, gigabytes * GiB, capability, n_multiprocessors, is_nominal=True)


_GEFORCE = "NVIDIA GeForce "
_CATALOGUE = (
    GpuModel("A10G-24GB", "NVIDIA A10G", _mib(22_723), (8, 6), 80),
    GpuModel("A100-40GB", "NVIDIA A100-SXM4-40GB", _mib(40_326), (8, 0), 108),
    GpuModel("A100-80GB", "NVIDIA A100-SXM4-80GB", _mib(81_051), (8, 0), 108),
    GpuModel("A6000-48GB", "NVIDIA RTX A6000", _mib(48_685), (8, 6), 84),
    GpuModel("B200-180GB", "NVIDIA B200", _mib(182_642), (10, 0), 148),
    GpuModel("H100-80GB", "NVIDIA H100 80GB HBM3", _mib(81_089), (9, 0), 132),
    GpuModel("H200-141GB", "NVIDIA H200", _mib(143_156), (9, 0), 132),
    GpuModel("L4-24GB", "NVIDIA L4", _mib(22_700), (8, 9), 58),
    GpuModel("L40S-48GB", "NVIDIA L40S", _mib(45_589), (8, 9), 142),
    GpuModel("RTX3090-24GB", "NVIDIA GeForce RTX 3090", _mib(24_259), (8, 6), 82),
    GpuModel("RTX4090-24GB", "NVIDIA GeForce RTX 4090", _mib(24_563), (8, 9), 128),
    GpuModel("T4-16GB", "Tesla T4", _mib(15_095), (7, 5), 40),
    GpuModel("V100-16GB", "Tesla V100-SXM2-16GB", _mib(16_160), (7, 0), 80),
    GpuModel("V100-32GB", "Tesla V100-SXM2-32GB", _mib(32_510), (7, 0), 80),
    _nominal("A4000-16GB", "NVIDIA RTX A4000", 16, (8, 6), 48),
    _nominal("A5000-24GB", "NVIDIA RTX A5000", 24, (8, 6), 64),
    _nominal("GTX1080Ti-11GB", f"{_GEFORCE}GTX 1080 Ti", 11, (6, 1), 28),
    _nominal("GTX1650-4GB", f"{_GEFORCE}GTX 1650", 4, (7, 5), 14),
    _nominal("GTX1660Ti-6GB", f"{_GEFORCE}GTX 1660 Ti", 6, (7, 5), 24),
    _nominal("P100-16GB", "Tesla P100-PCIE-16GB", 16, (6, 0), 56),
    _nominal("RTX2060-6GB", f"{_GEFORCE}RTX 2060", 6, (7, 5), 30),
    _nominal("RTX2070-8GB", f"{_GEFORCE}RTX 2070", 8, (7, 5), 36),
    _nominal("RTX2080-8GB", f"{_GEFORCE}RTX 2080", 8, (7, 5), 46),
    _nominal("RTX2080Ti-11GB", f"{_GEFORCE}RTX 2080 Ti", 11, (7, 5), 68),
    _nominal("RTX3050-8GB", f"{_GEFORCE}RTX 3050", 8, (8, 6), 20),
    _nominal("RTX3050-Laptop-4GB", f"{_GEFORCE}RTX 3050 Laptop GPU", 4, (8, 6), 16),
    _nominal("RTX3060-12GB", f"{_GEFORCE}RTX 3060", 12, (8, 6), 28),
    _nominal("RTX3060-Laptop-6GB", f"{_GEFORCE}RTX 3060 Laptop GPU", 6, (8, 6), 30),
    _nominal("RTX3070-8GB", f"{_GEFORCE}RTX 3070", 8, (8, 6), 46),
    _nominal("RTX3070-Laptop-8GB", f"{_GEFORCE}RTX 3070 Laptop GPU", 8, (8, 6), 40),
    _nominal("RTX3080-10GB", f"{_GEFORCE}RTX 3080", 10, (8, 6), 68),
    _nominal("RTX3080-Laptop-16GB", f"{_GEFORCE}RTX 3080 Laptop GPU", 16, (8, 6), 48),
    _nominal("RTX4050-Laptop-6GB", f"{_GEFORCE}RTX 4050 Laptop GPU", 6, (8, 9), 20),
    _nominal("RTX4060-8GB", f"{_GEFORCE}RTX 4060", 8, (8, 9), 24),
    _nominal("RTX4060-Laptop-8GB", f"{_GEFORCE}RTX 4060 Laptop GPU", 8, (8, 9), 24),
    _nominal("RTX4060Ti-16GB", f"{_GEFORCE}RTX 4060 Ti", 16, (8, 9), 34),
    _nominal("RTX4070-12GB", f"{_GEFORCE}RTX 4070", 12, (8, 9), 46),
    _nominal("RTX4070-Laptop-8GB", f"{_GEFORCE}RTX 4070 Laptop GPU", 8, (8, 9), 36),
    _nominal("RTX4070Ti-12GB", f"{_GEFORCE}RTX 4070 Ti", 12, (8, 9), 60),
    _nominal("RTX4080-16GB", f"{_GEFORCE}RTX 4080", 16, (8, 9), 76),
    _nominal("RTX4080-Laptop-12GB", f"{_GEFORCE}RTX 4080 Laptop GPU", 12, (8, 9), 58),
    _nominal("RTX4090-Laptop-16GB", f"{_GEFORCE}RTX 4090 Laptop GPU", 16, (8, 9), 76),
    _nominal("RTX5060Ti-16GB", f"{_GEFORCE}RTX 5060 Ti", 16, (12, 0), 36),
    _nominal("RTX5070-12GB", f"{_GEFORCE}RTX 5070", 12, (12, 0), 48),
    _nominal("RTX5070Ti-16GB", f"{_GEFORCE}RTX 5070 Ti", 16, (12, 0), 70),
    _nominal("RTX5080-16GB", f"{_GEFORCE}RTX 5080", 16, (12, 0), 84),
    _nominal("RTX5090-32GB", f"{_GEFORCE}RTX 5090", 32, (12, 0), 170),
    _nominal("RTX5090-Laptop-24GB", f"{_GEFORCE}RTX 5090 Laptop GPU", 24, (12, 0), 82),
    _nominal("RTX6000Ada-48GB", "NVIDIA RTX 6000 Ada Generation", 48, (8, 9), 142),
    _nominal("RTXPRO6000-96GB", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96, (12, 0), 188),
)
_BY_KEY = {gpu.name.lower(): gpu for gpu in _CATALOGUE}


def gpu_names() -> list[str]:
    """Names in the catalogue, sorted."""
    return sorted(gpu.name for gpu in _CATALOGUE)


def find_gpu(name: str) -> GpuModel:
    """Find a GPU by its name (``H100-80GB``; ``h100`` if only one fits) or make one of a size (``24GiB``).

    Raises
    ------
    UsageError
        If the name is unknown or fits several; the message lists the names.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key in _BY_KEY:
        return _BY_KEY[key]
    if _SIZE_TEXT.match(name):
        return GpuModel(name.strip(), f"a device of {name.strip()}", parse_bytes(name), (8, 0), 108)
    found = [gpu for known, gpu in _BY_KEY.items() if known.split("-")[0] == key]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{name!r} fits several GPUs: choose one of {', '.join(gpu.name for gpu in found)}")
    raise UnknownNameError(f"{name!r} is not a known GPU", name, gpu_names(), ", or give a size such as 24GiB")


def find_usable_gpu(name: str) -> GpuModel:
    """:func:`find_gpu`, of which something is left beside the modelled CUDA context.

    Raises
    ------
    UsageError
        If the name is unknown or fits several, or nothing is left.
    """
    gpu = find_gpu(name)
    if gpu.usable_bytes <= 0:
        raise UsageError(
            f"{gpu.name}: PyTorch can have nothing of a card of that size, because its CUDA context is modelled with "
            f"{format_bytes(gpu.context_bytes)}; give a larger size"
        )
    return gpu
