"""Stacks as frameworks make them, by the files and functions that allocate: each gets its category by its rule."""

from __future__ import annotations

import pytest

from memscope.attribution.attribution import attribute
from memscope.attribution.rule_table import ALL_RULES, RULES
from memscope.trace.categories import Category
from tests.attribution.scripted import CALL, SITE, USER, FrameText, Script, categories

FSDP = f"{SITE}/torch/distributed/fsdp"
VLLM = "/usr/local/lib/python3.10/dist-packages/vllm"
MEGATRON = "/usr/local/lib/python3.10/dist-packages/megatron/core"
DDP_FORWARD: FrameText = ("forward", f"{MEGATRON}/distributed/data_parallel_base.py", 9)
WRAPPED: list[FrameText] = [("forward", f"{FSDP}/fully_sharded_data_parallel.py", 850), CALL, USER]
CONVERT: FrameText = ("convert", f"{SITE}/torch/nn/modules/module.py", 1369)
APPLY: FrameText = ("_apply", f"{SITE}/torch/nn/modules/module.py", 979)
MOVE: FrameText = ("to", f"{SITE}/torch/nn/modules/module.py", 1383)

CASES: dict[str, tuple[list[FrameText], str, str]] = {
    "a model within FSDP": ([("forward", "/home/me/net.py", 3), CALL, *WRAPPED], "activations", "module forward"),
    "a model within Megatron's DDP": (
        [
            ("forward", "/home/me/net.py", 3),
            CALL,
            ("forward", f"{MEGATRON}/distributed/data_parallel_base.py", 9),
            USER,
        ],
        "activations",
        "module forward",
    ),
    "fully_shard gathers": (
        [
            ("allocate", f"{FSDP}/_fully_shard/_fsdp_collectives.py", 59),
            ("foreach_all_gather", f"{FSDP}/_fully_shard/_fsdp_collectives.py", 350),
            CALL,
            USER,
        ],
        "communication",
        "FSDP gathers and reduces",
    ),
    "fully_shard shards": (
        [("_init_sharded_param", f"{FSDP}/_fully_shard/_fsdp_param.py", 307), USER],
        "weights",
        "FSDP shards",
    ),
    "DDP's buckets": (
        [("_ddp_init_helper", f"{SITE}/torch/nn/parallel/distributed.py", 1400), USER],
        "communication",
        "DDP buckets",
    ),
    "Megatron's buffers": (
        [("__init__", f"{MEGATRON}/distributed/param_and_grad_buffer.py", 592), USER],
        "communication",
        "Megatron buffers",
    ),
    "Megatron's main parameters": (
        [("_build_model_and_main_param_groups", f"{MEGATRON}/optimizer/distrib_optimizer.py", 376), USER],
        "optimizer_state",
        "master weights",
    ),
    "DeepSpeed's partitions": (
        [("__init__", f"{SITE}/deepspeed/runtime/zero/stage_1_and_2.py", 300), USER],
        "optimizer_state",
        "DeepSpeed master weights, made with the optimizer",
    ),
    "the Trainer's predictions": (
        [("nested_concat", f"{SITE}/transformers/trainer_pt_utils.py", 120), USER],
        "activations",
        "outputs joined by a library",
    ),
    "vLLM's cache": (
        [("_allocate_kv_cache_tensors", f"{VLLM}/v1/worker/gpu_model_runner.py", 3758), USER],
        "kv_cache",
        "KV cache of vLLM",
    ),
    "vLLM's cache before V1": (
        [
            ("_allocate_kv_cache", f"{VLLM}/worker/cache_engine.py", 83),
            ("__init__", f"{VLLM}/worker/cache_engine.py", 64),
        ],
        "kv_cache",
        "KV cache of vLLM",
    ),
    "vLLM's batch buffers": (
        [("__init__", f"{VLLM}/v1/worker/gpu_model_runner.py", 200), USER],
        "inputs",
        "serving batch",
    ),
    "vLLM's weights": (
        [("create_weights", f"{VLLM}/model_executor/layers/linear.py", 178), USER],
        "weights",
        "parameter initialisation",
    ),
    "SGLang's pool": (
        [("_create_buffers", f"{SITE}/sglang/srt/mem_cache/memory_pool.py", 300), USER],
        "kv_cache",
        "KV cache of SGLang",
    ),
    "a cache set up by gpt-fast": (
        [("setup_caches", "/home/me/gpt-fast/model.py", 120), USER],
        "kv_cache",
        "KV cache, by the name of what makes it",
    ),
    "a LoRA adapter": ([("update_layer", f"{SITE}/peft/tuners/lora/layer.py", 80), USER], "weights", "adapters"),
    "bitsandbytes' state": (
        [("get_state_buffer", f"{SITE}/bitsandbytes/optim/optimizer.py", 320), USER],
        "optimizer_state",
        "optimizer state",
    ),
    "bitsandbytes' weights": (
        [("_quantize", f"{SITE}/bitsandbytes/nn/modules.py", 290), USER],
        "weights",
        "quantised weights",
    ),
    "the Trainer's batch": (
        [("_prepare_input", f"{SITE}/transformers/trainer.py", 3700), USER],
        "inputs",
        "batch to device",
    ),
    "a meter's counters": (
        [CONVERT, ("_apply", f"{SITE}/torchmetrics/metric.py", 891), MOVE, USER],
        "workspace",
        "moved with a module",
    ),
    "a network within a meter": (
        [CONVERT, APPLY, ("_apply", f"{SITE}/torchmetrics/metric.py", 879), MOVE, USER],
        "weights",
        "module moved or loaded",
    ),
    "an LSTM": (
        [CONVERT, APPLY, ("_apply", f"{SITE}/torch/nn/modules/rnn.py", 290), MOVE, USER],
        "weights",
        "module moved or loaded",
    ),
    "a compiled graph": (
        [("call", "/tmp/torchinductor_me/ab/cabc.py", 40), USER],
        "activations",
        "loss",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_a_frameworks_stack_gets_its_category_by_its_rule(case: str) -> None:
    stack, category, rule = CASES[case]
    script = Script({"stack": stack})
    script.alloc("it", "stack", 4096)
    attribution = attribute(script.lifetimes())
    decided = attribution.rule_of(0)
    assert decided is not None
    assert (Category(int(attribution.category[0])).label, decided.name) == (category, rule)


def test_every_rule_has_a_name_of_its_own_and_a_reason_and_those_that_read_stacks_a_pattern() -> None:
    assert len({rule.name for rule in ALL_RULES}) == len(ALL_RULES)
    assert all(rule.reason for rule in ALL_RULES)
    assert all(rule.frames for rule in RULES)


def test_a_fixed_workspace_is_known_by_its_size_only_if_it_stays() -> None:
    script = Script()
    script.alloc("workspace", "forward", 8_519_680)
    script.alloc("same size", "block", 8_519_680)
    script.free("same size", "block")
    assert categories(script) == {"workspace": "workspace", "same size": "temporaries"}


@pytest.mark.parametrize("stack", [None, "user"])
def test_a_workspace_that_is_freed_when_the_program_ends_is_one(stack: str | None) -> None:
    script = Script()
    script.alloc("workspace", "forward", 8_519_680)
    script.alloc("activation", "forward")
    script.free("activation", "user")
    script.free("workspace", stack)
    assert categories(script)["workspace"] == "workspace"
