"""Rules for programs on several devices: FSDP, DDP, DeepSpeed, Megatron, and collectives.

A wrapper's own ``forward`` is in every stack of the model inside it; so these rules name the functions that allocate,
and never a whole file that the model is called through.
"""

from __future__ import annotations

from memscope.attribution.rule import Rule
from memscope.trace.categories import Category
from memscope.trace.frames import FramePattern

COMMUNICATION_RULES: tuple[Rule, ...] = (
    Rule(
        "FSDP shards",
        Category.WEIGHTS,
        "torch/distributed/fsdp: _init_sharded_param of fully_shard, and the flat parameters of FSDP, hold the weights",
        (
            FramePattern(
                r"torch/distributed/(fsdp|_composable/fsdp)/",
                r"^(_init_sharded_param|flatten_tensors\w*|_init_flat_param_and_metadata|shard|_get_shard|"
                r"reset_sharded_param|_materialize\w*)$",
            ),
        ),
    ),
    Rule(
        "FSDP gradients",
        Category.GRADIENTS,
        "torch/distributed/fsdp: gradients that fully_shard keeps in full, or accumulates",
        (
            FramePattern(
                r"torch/distributed/(fsdp|_composable/fsdp)/",
                r"^(unsharded_zero_grad_data|to_accumulated_grad_if_needed|accumulate_unsharded_grad_if_needed|unshard_grad)$",
            ),
        ),
    ),
    Rule(
        "FSDP gathers and reduces",
        Category.COMMUNICATION,
        "torch/distributed/fsdp: parameters gathered for use, and the buffers that gradients are reduced in",
        (
            FramePattern(
                r"torch/distributed/(fsdp|_composable/fsdp)/",
                r"^(foreach_all_gather\w*|foreach_reduce\w*|all_gather_copy_in\w*|_get_param_all_gather_inputs|allocate|"
                r"init_all_gather_outputs|alloc_all_gather_outputs|init_unsharded_param|chunk_cat|"
                r"_alloc_padded_unsharded_flat_param|_all_gather_flat_param|_use_low_precision_shard|"
                r"init_flat_param_attributes|_reduce_grad\w*|_get_reduce_scatter_tensors|_unshard|unshard)$",
            ),
        ),
    ),
    Rule(
        "DDP buckets",
        Category.COMMUNICATION,
        "torch/nn/parallel/distributed.py: DistributedDataParallel makes its reducer's buckets when it is made",
        (FramePattern(r"torch/nn/parallel/distributed\.py$", r"^(_ddp_init_helper|_\w*delay\w*)$"),),
    ),
    Rule(
        "DDP reducer",
        Category.COMMUNICATION,
        "torch/csrc/distributed/c10d/reducer.cpp makes and rebuilds the buckets",
        (FramePattern(function=r"c10d::Reducer::"),),
    ),
    Rule(
        "DeepSpeed master weights",
        Category.OPTIMIZER_STATE,
        "deepspeed/runtime/zero/stage_1_and_2.py and stage3.py: float32 copies of a partition of the weights",
        (
            FramePattern(
                r"deepspeed/runtime/(zero/stage\w*|bf16_optimizer|fp16/\w+)\.py$",
                r"^(_create_fp32_partitions|initialize_optimizer_states|_setup_for_real_optimizer|_create_next_swappable\w*)$",
            ),
        ),
    ),
    Rule(
        "DeepSpeed weights",
        Category.WEIGHTS,
        "deepspeed/runtime/zero: parameters partitioned as they are made, and flattened weights",
        (
            FramePattern(
                r"deepspeed/runtime/zero/|deepspeed/runtime/bf16_optimizer",
                r"^(_partition_param\w*|_convert_to_deepspeed_param|_post_init_method|flatten_dense_tensors_aligned|"
                r"_create_fp16_partitions\w*|_zero_init_param)$",
            ),
        ),
    ),
    Rule(
        "DeepSpeed gradients",
        Category.GRADIENTS,
        "deepspeed/runtime/zero: the partition of the gradients that this process keeps",
        (
            FramePattern(
                r"deepspeed/runtime/zero/|deepspeed/runtime/bf16_optimizer",
                r"^(get_flat_partition|partition_grads|_create_fp16_sub_groups|set_none_gradients_to_zero|"
                r"copy_gradients_from_reduced_bucket)$",
            ),
        ),
    ),
    Rule(
        "DeepSpeed communication",
        Category.COMMUNICATION,
        "deepspeed/comm and deepspeed/runtime/zero: reduce buckets and gathered parameters",
        (
            FramePattern(
                r"deepspeed/comm/|deepspeed/runtime/zero/|deepspeed/runtime/comm/",
                r"^(all_gather\w*|_all_gather\w*|_allgather\w*|allreduce\w*|all_reduce\w*|reduce_scatter\w*|"
                r"_?reduce_\w+|average_tensor|setup_buckets|_avg_scatter_grads|all_to_all\w*)",
            ),
        ),
    ),
    Rule(
        "DeepSpeed master weights, made with the optimizer",
        Category.OPTIMIZER_STATE,
        "deepspeed/runtime/zero/stage_1_and_2.py __init__ clones each partition in float32",
        (FramePattern(r"deepspeed/runtime/zero/stage\w*\.py$", r"^__init__$"),),
    ),
    Rule(
        "Megatron buffers",
        Category.COMMUNICATION,
        "megatron/core/distributed/param_and_grad_buffer.py: the buffers that gradients and parameters are reduced in",
        (FramePattern(r"megatron/core/distributed/param_and_grad_buffer\.py$"),),
    ),
    Rule(
        "Megatron gradient reduction",
        Category.COMMUNICATION,
        "megatron/core/distributed and tensor_parallel: collectives of gradients and of activations",
        (
            FramePattern(
                r"megatron/core/(distributed|tensor_parallel|pipeline_parallel)/",
                r"^(_?(all_)?reduce\w*|_?(all_)?gather\w*|_allreduce\w*|finalize_model_grads|_communicate\w*|"
                r"start_grad_sync|start_param_sync|recv_\w+|send_\w+|get_tensor)$",
            ),
        ),
    ),
    Rule(
        "collective",
        Category.COMMUNICATION,
        "torch.distributed's collectives and NCCL's process group",
        (
            FramePattern(
                r"torch/distributed/(distributed_c10d|_functional_collectives\w*|nn/functional)|ProcessGroupNCCL|"
                r"(vllm|sglang)/.*/(pynccl|parallel_state|custom_all_reduce)\w*\.py$",
            ),
        ),
    ),
)
