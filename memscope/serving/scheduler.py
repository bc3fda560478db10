"""How an engine forms its steps, and how long each takes: a model of two limits, arithmetic and memory traffic."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from memscope.errors import FieldError, UnknownNameError, UsageError
from memscope.serving._parameters import Parameters
from memscope.serving.model_config import ModelConfig

SCHEDULERS = ("static", "continuous", "chunked")
PREEMPTIONS = ("recompute", "swap")


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """The scheduler's limits; the defaults are vLLM's.

    Attributes
    ----------
    policy
        ``static``: a batch runs until its last request is done, and keeps its memory until then. Where keys and values
        are plain tensors (``max-length``, ``concat``) it is padded, as Hugging Face's ``generate`` does it: every
        prompt is made as long as the longest one, and every sequence grows until all are done. ``continuous``:
        requests join and leave at every step, and a prompt is computed in one step. ``chunked``: a prompt may be spread
        over steps.
    max_requests
        The most sequences of a step: requests, or the samples that they ask for.
    max_step_tokens
        The most tokens of a step; where prompts are not spread, at least the longest sequence.
    preemption
        Of a request with all its samples: ``recompute``, or ``swap`` to host memory of ``swap_bytes`` (and recompute
        what has no room there). Managers that share prefixes always recompute.
    """

    policy: str = "chunked"
    max_requests: int = 256
    max_step_tokens: int = 8192
    preemption: str = "recompute"
    swap_bytes: int = 0

    def __post_init__(self) -> None:
        if self.policy not in SCHEDULERS:
            raise UnknownNameError(f"there is no scheduler {self.policy!r}", self.policy, SCHEDULERS)
        if self.preemption not in PREEMPTIONS:
            raise UnknownNameError(f"there is no preemption {self.preemption!r}", self.preemption, PREEMPTIONS)
        if self.max_requests < 1 or self.max_step_tokens < 1:
            raise UsageError("a step needs at least one request and one token")
        if self.preemption == "swap" and self.swap_bytes < 1:
            raise FieldError("swapping needs {swap_bytes}", {"swap_bytes": "swap space"})
        if self.preemption == "recompute" and self.swap_bytes:
            fields = {"swap_bytes": "swap space", "preemption": "the preemption"}
            raise FieldError("{swap_bytes} is used with {preemption} swap only", fields)


_LEAST_SPEED = 1e6
"""Slower than any machine of the last fifty years; times at less could not be counted."""
COMPUTE_FRAC = 0.5
"""Share of peak arithmetic that a prefill reaches: an assumption, in the middle of what engines report."""
BANDWIDTH_FRAC = 0.8
"""Share of peak bandwidth that a decode reaches: an assumption."""
STEP_OVERHEAD_S = 0.002
"""Scheduling, sampling and launches of one step: an assumption."""
SWAP_BYTES_PER_S = 25e9
"""Between device and host: PCIe 4.0 ×16, of whose 31.5 GB/s about 25 are reached."""

PEAKS: dict[str, tuple[float, float]] = {
    "A10G-24GB": (70e12, 600e9),
    "A100-40GB": (312e12, 1555e9),
    "A100-80GB": (312e12, 2039e9),
    "A6000-48GB": (154.8e12, 768e9),
    "B200-180GB": (2250e12, 8000e9),
    "H100-80GB": (989.4e12, 3350e9),
    "H200-141GB": (989.4e12, 4800e9),
    "L4-24GB": (121e12, 300e9),
    "L40S-48GB": (362e12, 864e9),
    "RTX3090-24GB": (71e12, 936e9),
    "RTX4090-24GB": (165.2e12, 1008e9),
    "RTX5090-32GB": (209.5e12, 1792e9),
    "T4-16GB": (65e12, 320e9),
    "V100-16GB": (125e12, 900e9),
    "V100-32GB": (125e12, 900e9),
    "A4000-16GB": (76.7e12, 448e9),
    "A5000-24GB": (111.1e12, 768e9),
    "GTX1080Ti-11GB": (11.3e12, 484e9),
    "GTX1650-4GB": (6.0e12, 128e9),
    "GTX1660Ti-6GB": (10.9e12, 288e9),
    "P100-16GB": (18.7e12, 732e9),
    "RTX2060-6GB": (25.8e12, 336e9),
    "RTX2070-8GB": (29.9e12, 448e9),
    "RTX2080-8GB": (40.3e12, 448e9),
    "RTX2080Ti-11GB": (53.8e12, 616e9),
    "RTX3050-8GB": (18.2e12, 224e9),
    "RTX3050-Laptop-4GB": (14.3e12, 192e9),
    "RTX3060-12GB": (25.5e12, 360e9),
    "RTX3060-Laptop-6GB": (26.2e12, 336e9),
    "RTX3070-8GB": (40.6e12, 448e9),
    "RTX3070-Laptop-8GB": (33.2e12, 448e9),
    "RTX3080-10GB": (59.5e12, 760e9),
    "RTX3080-Laptop-16GB": (42.0e12, 448e9),
    "RTX4050-Laptop-6GB": (24.3e12, 192e9),
    "RTX4060-8GB": (30.2e12, 272e9),
    "RTX4060-Laptop-8GB": (29.1e12, 256e9),
    "RTX4060Ti-16GB": (44.1e12, 288e9),
    "RTX4070-12GB": (58.3e12, 504e9),
    "RTX4070-Laptop-8GB": (40.1e12, 256e9),
    "RTX4070Ti-12GB": (80.2e12, 504e9),
    "RTX4080-16GB": (97.5e12, 717e9),
    "RTX4080-Laptop-12GB": (67.7e12, 432e9),
    "RTX4090-Laptop-16GB": (79.4e12, 576e9),
    "RTX5060Ti-16GB": (47.4e12, 448e9),
    "RTX5070-12GB": (61.7e12, 672e9),
    "RTX5070Ti-16GB": (87.9e12, 896e9),
    "RTX5080-16GB": (112.6e12, 960e9),
    "RTX5090-Laptop-24GB": (90.7e12, 896e9),
    "RTX6000Ada-48GB": (364.2e12, 960e9),
    "RTXPRO6000-96GB": (503.8e12, 1792e9),
}
"""Dense 16-bit tensor operations with 32-bit accumulation, and bytes, a second.

Source: NVIDIA's data sheets of each product, SXM modules where a product comes in several forms. Where a sheet gives
figures with sparsity alone they are halved: A6000 (309.7 with), H100 and H200 (1,979), B200 (HGX, 4,500 at 1,000 W).
GeForce: appendices of NVIDIA's GA102 (71), Ada (165.2) and Blackwell RTX (209.5, a quarter of the 838 with 16-bit
accumulation and sparsity) architecture papers. A10G: AWS's variant of the A10, 70, where the A10 has 125. The rest,
from A4000 on, is reckoned: multiprocessors, boost clock and bandwidth of NVIDIA's product pages, at 512 operations a
clock for GeForce since Turing (the rate of the papers above), 1,024 for workstation cards, 256 without tensor cores;
what laptops reach depends on their power limit.
"""


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a step costs on one GPU of the group.

    A step takes the longer of its arithmetic and its memory traffic, and an overhead. Arithmetic is two operations for
    each parameter that a token passes through and, in attention, four for each query element and token looked at.
    Traffic is the weights once, and the keys and values of every sequence in the step once. What GPUs of a group tell
    each other is not counted.

    Attributes
    ----------
    flops_per_token, flops_per_token_pair
        Operations for a token, and for each token that it looks at.
    weight_bytes
        Read in every step.
    """

    flops_per_s: float
    bytes_per_s: float
    flops_per_token: float
    flops_per_token_pair: float
    weight_bytes: int
    overhead_s: float = STEP_OVERHEAD_S
    swap_bytes_per_s: float = SWAP_BYTES_PER_S


def peaks_of(gpu: str, tflops: float | None, bandwidth_bytes_per_s: int | None) -> tuple[float, float]:
    """Peak operations and bytes a second of a catalogue's GPU, or as given.

    Raises
    ------
    UsageError
        If they are neither known nor given.
    """
    known = PEAKS.get(gpu)
    if known is None and (tflops is None or bandwidth_bytes_per_s is None):
        fields = {"peaks": "its peak arithmetic and memory traffic"}
        raise FieldError("the speed of {gpu} is not known: give {peaks}", fields, gpu=gpu)
    flops = known[0] if tflops is None and known is not None else (tflops or 0) * 1e12
    traffic = known[1] if bandwidth_bytes_per_s is None and known is not None else float(bandwidth_bytes_per_s or 0)
    if not all(_LEAST_SPEED <= speed < inf for speed in (flops, traffic)):
        raise UsageError(f"a speed must be at least {_LEAST_SPEED:,.0f} operations, or bytes, a second")
    return flops, traffic


def make_cost_model(
    config: ModelConfig,
    parameters: Parameters | None,
    weight_bytes: int,
    peaks: tuple[float, float],
    tensor_parallel: int,
) -> CostModel:
    """The cost model of a model on a GPU; without counted parameters, as many as 16-bit weights would have."""
    n_active = parameters.n_active_params / tensor_parallel if parameters is not None else weight_bytes / 2
    value_dim = config.optional("v_head_dim")
    key_dim = config.integer("qk_nope_head_dim") + config.integer("qk_rope_head_dim") if config.is_latent else 0
    dims = key_dim + int(value_dim) if config.is_latent and value_dim else 2 * config.head_dim
    return CostModel(
        flops_per_s=peaks[0] * COMPUTE_FRAC,
        bytes_per_s=peaks[1] * BANDWIDTH_FRAC,
        flops_per_token=2.0 * n_active,
        flops_per_token_pair=2.0 * config.n_layers * config.n_heads * dims / tensor_parallel,
        weight_bytes=weight_bytes,
    )
