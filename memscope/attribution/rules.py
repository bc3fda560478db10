"""Rules that tell an allocation's category from its call stack, for traces without identities.

The rules are data: an ordered table, first match wins. A rule looks for frames by file and function; it never looks at
sizes. Backward and forward allocations are told apart from temporaries by how long they live (see ``if_short_lived``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array
from memscope.trace.trace import Trace


@dataclass(frozen=True)
class FramePattern:
    """A frame by regular expressions on its file (``/`` as separator) and its function; both must be found."""

    file: str = ""
    function: str = ""

    @cached_property
    def _compiled(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return re.compile(self.file), re.compile(self.function)

    def matches(self, filename: str, name: str) -> bool:
        """Whether a frame has both."""
        file, function = self._compiled
        return file.search(filename) is not None and function.search(name) is not None


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes
    ----------
    name, reason
        What it is called, and why such a stack means this category.
    category
        What an allocation with such a stack is.
    frames
        Patterns of which every one must be found somewhere in the stack.
    if_short_lived
        The category instead, if the allocation dies before the run of allocations of this rule that it belongs to ends.
        None: the length of life does not matter.
    """

    name: str
    category: Category
    reason: str
    frames: tuple[FramePattern, ...] = field(default=())
    if_short_lived: Category | None = None


_MODULE_FILE = r"torch/nn/modules/module\.py$"

RULES: tuple[Rule, ...] = (
    Rule(
        "library workspace",
        Category.WORKSPACE,
        "cuBLAS, cuBLASLt and cuDNN take scratch memory through these functions",
        (
            FramePattern(
                function=r"getCurrentCUDABlasHandle|getCUDABlasLtWorkspace|[Cc]ublas\w*Workspace|cudnn\w*[Ww]orkspace"
            ),
        ),
    ),
    Rule(
        "collective",
        Category.COMMUNICATION,
        "buffers of NCCL collectives, and of DDP's and FSDP's buckets",
        (
            FramePattern(
                file=r"torch/distributed/(distributed_c10d|fsdp/|_composable/fsdp/|nn/functional)|ProcessGroupNCCL|"
                r"megatron/core/distributed/|deepspeed/comm/",
            ),
        ),
    ),
    Rule(
        "KV cache",
        Category.KV_CACHE,
        "transformers' cache classes and files named after them, and the cache pools of serving engines",
        (
            FramePattern(
                file=r"(^|/)cache_utils\w*\.py$|(^|/)kv_?cache\w*\.py$|vllm/.*(kv_cache|cache_engine|gpu_model_runner)|sglang/.*memory_pool",
                function=r"^update|^append|lazy_init|__init__|early_init|(_?allocate|initialize|init)_?\w*kv|_create_buffers|_init_kv",
            ),
        ),
    ),
    Rule(
        "optimizer state",
        Category.OPTIMIZER_STATE,
        "optimizers make their state in _init_group on the first step",
        (FramePattern(function=r"^_init_group$|^_init_state$|^init_state$"),),
    ),
    Rule(
        "optimizer step",
        Category.OPTIMIZER_STATE,
        "what an optimizer's step makes and keeps is its state; what it drops within the step is temporary",
        (
            FramePattern(
                file=r"torch/optim/(optimizer|lr_scheduler)\.py$", function=r"profile_hook_step|wrapper|_use_grad"
            ),
        ),
        Category.TEMPORARIES,
    ),
    Rule(
        "gradient accumulation",
        Category.GRADIENTS,
        "autograd's AccumulateGrad node makes a parameter's .grad",
        (FramePattern(function=r"AccumulateGrad"),),
    ),
    Rule(
        "backward",
        Category.GRADIENTS,
        "what the autograd engine makes and leaves behind is gradients; what dies within the backward is temporary",
        (
            FramePattern(
                file=r"torch/autograd/(graph|__init__)\.py$|torch/_tensor\.py$|\.so|^\?\?|engine\.cpp|^$",
                function=r"_engine_run_backward|^backward$|autograd::Engine|thread_main|evaluate_function",
            ),
        ),
        Category.TEMPORARIES,
    ),
    Rule(
        "module moved or loaded",
        Category.WEIGHTS,
        "Module.to(), .cuda() and state-dict loading make parameters and buffers",
        (FramePattern(file=_MODULE_FILE, function=r"^(_apply|to|cuda|half|bfloat16|float|to_empty|load_state_dict)$"),),
    ),
    Rule(
        "weights loader",
        Category.WEIGHTS,
        "model loaders make parameters",
        (
            FramePattern(
                file=r"transformers/(modeling_utils|core_model_loading)|vllm/.*model_loader|sglang/.*model_loader|"
                r"safetensors|accelerate/utils/modeling|accelerate/big_modeling",
            ),
        ),
    ),
    Rule(
        "parameter initialisation",
        Category.WEIGHTS,
        "a module's constructor makes its parameters where it is told to",
        (
            FramePattern(
                file=r"torch/nn/modules/(?!module\.py$)|torch/nn/parameter\.py$|/models?/|model\w*\.py$",
                function=r"^__init__$|^reset_parameters$|^create_weights$",
            ),
        ),
    ),
    Rule(
        "batch to device",
        Category.INPUTS,
        "data loaders and trainers move batches to the device in these functions",
        (
            FramePattern(
                file=r"torch/utils/data/|accelerate/(data_loader|utils/operations)\.py$|transformers/trainer\.py$|data\w*\.py$",
                function=r"send_to_device|_prepare_input|pin_memory|get_batch|^__next__$|^__iter__$|_next_data|collate",
            ),
        ),
    ),
    Rule(
        "module forward",
        Category.ACTIVATIONS,
        "what a module's forward makes and leaves behind is activations; what dies within the forward is temporary",
        (FramePattern(file=_MODULE_FILE, function=r"^(_call_impl|_wrapped_call_impl)$"),),
        Category.TEMPORARIES,
    ),
)
"""The table, in order."""


def match_stacks(trace: Trace, rules: Sequence[Rule] = RULES) -> Int32Array:
    """First rule that each stack matches: int32 (stacks,), positions in ``rules``, −1 for none.

    Patterns are tried once for each distinct frame, then combined along the stacks.
    """
    stacks = trace.stacks
    matched = np.full(len(stacks), NONE_ID, np.int32)
    if not len(stacks):
        return matched
    names = [trace.strings[i] for i in stacks.name_id]
    files = [trace.strings[i].replace("\\", "/") for i in stacks.filename_id]
    for rule_id in range(len(rules) - 1, -1, -1):
        hit = np.ones(len(stacks), np.bool_)
        for pattern in rules[rule_id].frames:
            frame_hit = np.array([pattern.matches(f, n) for f, n in zip(files, names, strict=True)], np.bool_)
            hit &= _any_frame(frame_hit, trace)
        matched[hit] = rule_id
    return matched


def _any_frame(frame_hit: BoolArray, trace: Trace) -> BoolArray:
    """Whether any frame of each stack is hit: bool (frames,) to bool (stacks,)."""
    stacks = trace.stacks
    running = np.concatenate([[0], np.cumsum(frame_hit[stacks.frame_ids])])
    found: BoolArray = running[stacks.offsets[1:]] > running[stacks.offsets[:-1]]
    return found
