"""The rules themselves, in order. ``RULES`` read stacks; ``CONTEXT_RULES`` come after them and can do without a stack.

File and function names are facts about other projects, read in their sources: torch 2.13, transformers 5.23, and the
public repositories of accelerate, PEFT, bitsandbytes, DeepSpeed, Megatron-LM, vLLM, SGLang and diffusers. Each reason
names the function that allocates. Order matters: a rule may rely on all those before it having failed.
"""

from __future__ import annotations

from memscope.attribution._distributed_rules import COMMUNICATION_RULES
from memscope.attribution.phases.lives import Life
from memscope.attribution.phases.phases import Phase
from memscope.attribution.rule import Rule
from memscope.trace.categories import Category
from memscope.trace.frames import FramePattern

MODULE_FILE = r"torch/nn/modules/module\.py$"
_ANY_FRAME = (FramePattern(function="."),)
_CACHE_FRAMES = (
    FramePattern(
        r"(^|/)cache_utils\w*\.py$|(^|/)kv_?cache\w*\.py$",
        r"^update|^append|lazy_init|__init__|early_init|^reorder_cache|^batch_|^crop$|^_?(de)?quantize$|"
        r"(_?allocate|initialize|init)_?\w*kv|_create_buffers|_init_kv",
    ),
)
_NOT_MODULES = "data|buffer|replay|cache|pool|env|load|runner|trainer|optim|sampl|metric"
"""Words in the names of files whose classes keep other things than parameters."""
_CUBLAS_WORKSPACES = (8_519_680,)
_SHARED_WORKSPACES = (32 << 20, 1 << 20)

LIBRARY_RULES: tuple[Rule, ...] = (
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
        "Triton workspace",
        Category.WORKSPACE,
        "torch/_inductor/runtime: scratch memory of compiled kernels",
        (FramePattern(r"torch/_inductor/runtime/|triton/runtime/", r"workspace|allocat"),),
    ),
)

CACHE_RULES: tuple[Rule, ...] = (
    Rule(
        "KV cache, saved for backward",
        Category.ACTIVATIONS,
        "what a cache holds in training and autograd frees in the backward pass is an activation",
        _CACHE_FRAMES,
        lives=(Life.SAVED,),
    ),
    Rule(
        "KV cache",
        Category.KV_CACHE,
        "transformers' cache classes (cache_utils.py, update and lazy_initialization), and files named after them",
        _CACHE_FRAMES,
    ),
    Rule(
        "KV cache of vLLM",
        Category.KV_CACHE,
        "vllm: _allocate_kv_cache_tensors of gpu_model_runner.py; before V1, cache_engine.py",
        (
            FramePattern(
                r"vllm/.*(gpu_model_runner|cache_engine|kv_cache\w*|attn_utils)\.py$",
                r"_?(re)?(allocate|initialize|init|reshape)_?\w*(kv|cache)|^__init__$",
            ),
            FramePattern(r"vllm/", r"kv_?cache|cache_engine"),
        ),
    ),
    Rule(
        "KV cache of SGLang",
        Category.KV_CACHE,
        "sglang/srt/mem_cache: _create_buffers and __init__ of the pools in memory_pool.py",
        (FramePattern(r"sglang/.*(memory_pool|mem_cache/\w*pool\w*|mem_cache/allocator)"),),
    ),
    Rule(
        "KV cache, by the name of what makes it",
        Category.KV_CACHE,
        "functions such as setup_caches of gpt-fast and torchtune, set_kv_cache of litgpt",
        (
            FramePattern(
                r"\.py$",
                r"^_?(setup|set|init|initialize|alloc|allocate|create|build|make)_(\w+_)?(kv_?caches?|caches)$",
            ),
        ),
    ),
    Rule(
        "growing cache",
        Category.KV_CACHE,
        "within a module, tensors of one place that grow by equal amounts and each outlive the next: a cache that is "
        "appended to with every token",
        (FramePattern(MODULE_FILE, r"^(_call_impl|_wrapped_call_impl)$"),),
        lives=(Life.GROWING,),
    ),
)

OPTIMIZER_RULES: tuple[Rule, ...] = (
    Rule(
        "optimizer state",
        Category.OPTIMIZER_STATE,
        "torch.optim makes its state in _init_group on the first step, bitsandbytes in init_state and get_state_buffer",
        (FramePattern(function=r"^_init_group$|^_init_state$|^init_state$|^get_state_buffer$"),),
    ),
    Rule(
        "restored optimizer state",
        Category.OPTIMIZER_STATE,
        "torch/optim/optimizer.py load_state_dict puts a checkpoint's state beside the parameters",
        (FramePattern(r"torch/optim/optimizer\.py$", r"^(load_state_dict|_process_value\w*|_cast)$"),),
    ),
    Rule(
        "master weights",
        Category.OPTIMIZER_STATE,
        "megatron/core/optimizer, apex and transformer_engine keep float32 copies of the weights with the optimizer",
        (
            FramePattern(
                r"megatron/(core/)?optimizer/|apex/(optimizers|fp16_utils|amp)/|transformer_engine/pytorch/optimizers/",
                r"^(_build_model_and_main_param_groups|__init__|_process_optimizer|prep_param_lists|"
                r"lazy_init_with_master_weights|initialize_state|_initialize_state|_init_state\w*)$",
            ),
        ),
    ),
    Rule(
        "loss scale",
        Category.OPTIMIZER_STATE,
        "torch/amp/grad_scaler.py: the scale and its growth counter are part of what a checkpoint restores",
        (FramePattern(r"torch/amp/grad_scaler\.py$", r"^_lazy_init_scale_growth_tracker$"),),
    ),
    Rule(
        "gradient clipping",
        Category.TEMPORARIES,
        "torch/nn/utils/clip_grad.py and GradScaler: norms and scaled copies",
        (
            FramePattern(
                r"torch/nn/utils/clip_grad\.py$|torch/amp/grad_scaler\.py$|torch/nn/utils/(_foreach|get_total_norm)"
            ),
        ),
    ),
    Rule(
        "within optimizer step",
        Category.TEMPORARIES,
        "what an optimizer drops within its step is temporary",
        _ANY_FRAME,
        (Phase.OPTIMIZER,),
        (Life.SHORT,),
    ),
    Rule(
        "optimizer step",
        Category.OPTIMIZER_STATE,
        "what an optimizer's step makes and keeps is its state",
        _ANY_FRAME,
        (Phase.OPTIMIZER,),
    ),
    Rule(
        "optimizer made",
        Category.OPTIMIZER_STATE,
        "the constructor of an optimizer that makes its state at once",
        (FramePattern(r"(^|/)\w*optim\w*(/\w+)*\.py$", r"^__init__$"),),
    ),
)

INPUT_RULES: tuple[Rule, ...] = (
    Rule(
        "batch to device",
        Category.INPUTS,
        "data loaders and trainers move batches to the device in these functions",
        (
            FramePattern(
                r"torch/utils/data/|accelerate/(data_loader|utils/operations)\.py$|transformers/(trainer|training_\w+)\.py$|"
                r"lightning/.*(apply_func|data_connector)\w*\.py$|data\w*\.py$",
                r"send_to_device|_prepare_inputs?|pin_memory|get_batch|^__next__$|^__iter__$|_next_data|collate|"
                r"move_data_to_device|batch_to",
            ),
        ),
    ),
    Rule(
        "serving batch",
        Category.INPUTS,
        "vllm gpu_model_runner.py, gpu_input_batch.py, block_table.py and sglang schedule_batch.py: buffers of batches",
        (
            FramePattern(
                r"vllm/.*(gpu_model_runner|gpu_input_batch|block_table|input_batch)\.py$|sglang/.*(schedule_batch|"
                r"forward_batch_info)\.py$",
                r"^(__init__|_make_buffer|_prepare_inputs?|prepare_for_\w+|init_new|_init_\w+)$",
            ),
        ),
    ),
    Rule(
        "generation's inputs",
        Category.INPUTS,
        "transformers/generation/utils.py prepares what the model is given for every token",
        (
            FramePattern(
                r"transformers/generation/\w+\.py$",
                r"^(_?prepare_\w+|_update_model_kwargs_for_generation|_expand_inputs_for_generation|"
                r"_get_initial_cache_position)$",
            ),
        ),
    ),
)

WEIGHT_RULES: tuple[Rule, ...] = (
    Rule(
        "moved with a module",
        Category.WORKSPACE,
        "a class's own _apply (torchmetrics: the counters of a meter) moves what is neither parameter nor buffer",
        (FramePattern(MODULE_FILE, r"(^|\.)(convert|<lambda>)$"),),
        called_by=FramePattern(r"^(?!.*(^|/)torch/).*\.py$", r"^_apply$"),
    ),
    Rule(
        "module moved or loaded",
        Category.WEIGHTS,
        "Module.to(), .cuda() and state-dict loading make parameters and buffers",
        (FramePattern(MODULE_FILE, r"^(_apply|to|cuda|half|bfloat16|float|to_empty|load_state_dict)$"),),
    ),
    Rule(
        "weights loader",
        Category.WEIGHTS,
        "transformers (modeling_utils, core_model_loading), accelerate (modeling, big_modeling, hooks of offloaded "
        "weights), vLLM and SGLang (model_loader), diffusers and safetensors make parameters",
        (
            FramePattern(
                r"transformers/(modeling_utils|core_model_loading|integrations/accelerate)|vllm/.*model_loader|"
                r"sglang/.*model_loader|safetensors|accelerate/utils/modeling|accelerate/big_modeling|"
                r"diffusers/(models/(modeling_utils|model_loading_utils)|loaders/)",
            ),
        ),
    ),
    Rule(
        "offloaded weights",
        Category.WEIGHTS,
        "accelerate/hooks.py brings a module's weights to the device before its forward",
        (FramePattern(r"accelerate/(hooks|utils/modeling)\.py$", r"^(set_module_tensor_to_device|pre_forward)$"),),
        lives=(),
    ),
    Rule(
        "quantised weights",
        Category.WEIGHTS,
        "bitsandbytes/nn/modules.py quantises parameters when they are moved; so do AWQ, GPTQ and compressed-tensors",
        (
            FramePattern(
                r"bitsandbytes/nn/modules\.py$|(auto_?gptq|autoawq|awq|compressed_tensors)/",
                r"^(_quantize|quantize|from_prequantized|cuda|to|pack\w*)$",
            ),
        ),
    ),
    Rule(
        "adapters",
        Category.WEIGHTS,
        "peft/tuners: update_layer makes the matrices of LoRA and its kin",
        (FramePattern(r"peft/tuners/", r"^(update_layer|__init__|reset_lora_parameters|_move_adapter\w*)$"),),
    ),
    Rule(
        "parameter initialisation",
        Category.WEIGHTS,
        "a module's constructor makes its parameters where it is told to",
        (
            FramePattern(
                r"torch/nn/modules/(?!module\.py$)|torch/nn/parameter\.py$|/models?/|model\w*\.py$|/model_executor/layers/",
                r"^__init__$|^reset_parameters$|^create_weights$|^initialize_parameters$|^materialize$",
            ),
        ),
    ),
    Rule(
        "weights made by name",
        Category.WEIGHTS,
        "functions that are called after making weights: init_weights, load_weights, create_weights",
        (
            FramePattern(
                r"\.py$", r"^_?(init|load|create|make|allocate)_(all_|model_)?(weight|param|parameter)s?(_list)?$"
            ),
        ),
        lives=(Life.SETUP,),
    ),
)

PASS_RULES: tuple[Rule, ...] = (
    Rule(
        "cuBLAS workspace by its size",
        Category.WORKSPACE,
        "aten/src/ATen/cuda/CublasHandlePool.cpp asks for exactly :4096:2:16:8 by default, and keeps it",
        _ANY_FRAME,
        lives=(Life.TO_THE_END,),
        sizes_bytes=_CUBLAS_WORKSPACES,
    ),
    Rule(
        "cuBLAS workspace by its size and life",
        Category.WORKSPACE,
        "CublasHandlePool.cpp: 32 MiB on Hopper and later; cuBLASLt: 1 MiB or 32 MiB. Made once, kept past the pass",
        _ANY_FRAME,
        (Phase.FORWARD, Phase.BACKWARD, Phase.GENERATE),
        (Life.TO_THE_END, Life.ONCE),
        _SHARED_WORKSPACES,
    ),
    Rule(
        "module's own table",
        Category.WORKSPACE,
        "made once in a forward pass and still there when it has come again: rotary frequencies, masks, tables",
        (FramePattern(MODULE_FILE, r"^(_call_impl|_wrapped_call_impl)$"),),
        (Phase.FORWARD,),
        (Life.LASTING, Life.ONCE),
    ),
    Rule(
        "gradient accumulation",
        Category.GRADIENTS,
        "autograd's AccumulateGrad node makes a parameter's .grad",
        (FramePattern(function=r"AccumulateGrad"),),
    ),
    Rule(
        "within backward",
        Category.TEMPORARIES,
        "what dies within the backward pass that it was made in is temporary",
        _ANY_FRAME,
        (Phase.BACKWARD,),
        (Life.SHORT,),
    ),
    Rule(
        "backward",
        Category.GRADIENTS,
        "what the autograd engine makes and leaves behind is gradients",
        _ANY_FRAME,
        (Phase.BACKWARD,),
    ),
    Rule(
        "within generation",
        Category.TEMPORARIES,
        "what one call of generate, or one batch of a serving engine, makes and drops is temporary",
        _ANY_FRAME,
        (Phase.GENERATE,),
        (Life.SHORT,),
    ),
    Rule(
        "within forward",
        Category.TEMPORARIES,
        "what dies within the forward pass that it was made in is temporary",
        _ANY_FRAME,
        (Phase.FORWARD,),
        (Life.SHORT,),
    ),
    Rule(
        "module forward",
        Category.ACTIVATIONS,
        "what a module's forward makes and leaves behind is activations",
        (FramePattern(MODULE_FILE, r"^(_call_impl|_wrapped_call_impl)$"),),
    ),
    Rule(
        "loss",
        Category.ACTIVATIONS,
        "made outside of modules between a forward pass and its backward pass",
        _ANY_FRAME,
        (Phase.FORWARD,),
    ),
    Rule(
        "CUDA graph",
        Category.WORKSPACE,
        "torch/cuda/graphs.py and torch/_inductor/cudagraph_trees.py: memory of a graph's own pool",
        (FramePattern(r"torch/cuda/graphs\.py$|torch/_inductor/cudagraph_trees\.py$"),),
    ),
    Rule(
        "made in a constructor",
        Category.WEIGHTS,
        "a constructor makes tensors before the first pass that are still there after it: parameters and buffers",
        (FramePattern(rf"^(?!.*({_NOT_MODULES})[^/]*\.py$).*\.py$", r"^__init__$"),),
        (Phase.OUTSIDE,),
        (Life.SETUP,),
    ),
    Rule(
        "outputs joined",
        Category.ACTIVATIONS,
        "made between passes at one place again and again, each time the one before with a piece more: outputs that a "
        "loop keeps (torch.cat)",
        (FramePattern(r"\.py$"),),
        (Phase.OUTSIDE,),
        (Life.JOINED,),
    ),
    Rule(
        "outputs joined by a library",
        Category.ACTIVATIONS,
        "transformers/trainer_pt_utils.py: an evaluation joins each batch's outputs to those before it",
        (FramePattern(r"transformers/trainer_pt_utils\.py$", r"nested_concat$|torch_pad_and_concatenate$"),),
    ),
    Rule(
        "fed to a pass",
        Category.INPUTS,
        "made by the program just before a forward pass or generation, and alive when it begins",
        (FramePattern(r"\.py$"),),
        (Phase.OUTSIDE,),
        (Life.FED,),
    ),
    Rule(
        "freed in backward",
        Category.ACTIVATIONS,
        "made outside of modules and freed within a backward pass: autograd had saved it",
        (FramePattern(r"\.py$"),),
        (Phase.OUTSIDE,),
        (Life.SAVED,),
    ),
)

RULES: tuple[Rule, ...] = (
    *LIBRARY_RULES,
    *COMMUNICATION_RULES,
    *CACHE_RULES,
    *OPTIMIZER_RULES,
    *INPUT_RULES,
    *WEIGHT_RULES,
    *PASS_RULES,
)
"""Rules that read stacks, in order."""

CONTEXT_RULES: tuple[Rule, ...] = (
    Rule(
        "autograd thread's workspace",
        Category.WORKSPACE,
        "CublasHandlePool.cpp: the threads of the autograd engine have cuBLAS handles of their own",
        (),
        (Phase.BACKWARD,),
        (Life.TO_THE_END,),
        _CUBLAS_WORKSPACES,
    ),
    Rule(
        "within backward, no stack",
        Category.TEMPORARIES,
        "threads of the autograd engine have no Python stack; what dies within the backward pass is temporary",
        (),
        (Phase.BACKWARD,),
        (Life.SHORT,),
    ),
    Rule(
        "backward, no stack",
        Category.GRADIENTS,
        "threads of the autograd engine have no Python stack; what they leave behind is gradients",
        (),
        (Phase.BACKWARD,),
    ),
)
"""Rules for what no stack was recorded of, in order; they come last."""


ALL_RULES: tuple[Rule, ...] = (*RULES, *CONTEXT_RULES)
"""The whole table: first the rules that read stacks, then those that need none."""
