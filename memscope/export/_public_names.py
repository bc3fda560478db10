"""Which names in a trace are public: of Python's library, of well-known packages, and words that any program uses."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

from memscope.replay.config import OPTION_NAMES

_LIBRARY = Path(sysconfig.get_path("stdlib"))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PACKAGES = _words("""
torch torchvision torchaudio torchao torchtune torchtitan functorch triton transformers accelerate peft trl
diffusers datasets tokenizers safetensors bitsandbytes deepspeed megatron apex transformer_engine flash_attn
xformers vllm sglang lightning pytorch_lightning lightning_fabric fairscale composer optimum timm einops
sentence_transformers numpy scipy pandas sklearn tqdm rich click joblib pyarrow dask distributed ray cupy rmm
numba jax flax memscope pytest _pytest pluggy IPython ipykernel tornado hydra omegaconf torchrun liger_kernel
galore_torch lion_pytorch came_pytorch adam_mini schedulefree prodigyopt
""")
"""Top-level packages whose files and functions anyone can look up."""

_NAMESPACES = _words("""
at c10 c10d torch std caffe2 pybind11 cuda autograd native nccl cudnn cublas thrust cub nvinfer google grpc
unwind CapturedTraceback detail impl ops dynamo jit inductor aoti profiler python fmt gloo
""")
_RELATIVE = _words("torch torchvision torchaudio transformers triton")
"""Of them those whose files are also recorded without what lies above the package."""
_C_FUNCTION = re.compile(
    r"_*(?:Py[A-Z_]|THP[A-Z]|cuda[A-Z]|cublas[A-Z]|cudnn[A-Z]|nccl[A-Z]|cu[A-Z])\w*|_start|_*clone\d?"
)
_FILES = re.compile(
    r"(?:.*[\\/])?(?:site-packages|dist-packages)[\\/](?P<package>\w+)(?P<inner>[\\/].*|\.py)|"
    r"(?:.*[\\/])?lib[\\/]python3(?:\.\d+)?[\\/](?P<library>[\w.\\/]+\.py)|"
    r"(?P<bare>(?P<first>\w+)(?:[\\/][\w.\\/-]+)?\.py)|"
    r"(?:.*[\\/])?(?P<tree>(?:c10|aten[\\/]src[\\/]ATen|torch[\\/]csrc)[\\/](?:[\w.-]+[\\/])*[\w.-]+\.(?:cpp|cc|h|cu|cuh|hpp))|"
    r"(?:.*[\\/])?(?P<shared>lib(?:torch(?:_cpu|_cuda|_python)?|c10(?:_cuda)?|cuda|cudart|cublas(?:Lt)?|cudnn|nccl|c|stdc\+\+|"
    r"python3(?:\.\d+)?)(?:\.so[\d.]*))"
)
_TYPES = re.compile(r"<[^<>]*>")
_QUALIFIED = re.compile(r"[\w:~]+", re.ASCII)
_FROZEN = re.compile(r"<frozen [\w.]+>|<string>|<stdin>|\?\?|Unknown|")
_COMPILED = re.compile(r"(?:.*[\\/])?torchinductor_[^\\/]*[\\/].*\.py")
_STEP = re.compile(r"(?:(?:step|iteration|epoch|ProfilerStep)[ #_-]*)?\d{1,18}", re.IGNORECASE)
_TENSOR = re.compile(
    r"(?:float|bfloat|int|uint|complex|bool|float8_e\dm\d\w*|quint|qint)\d* ?\[[\d, ]*\]|bool \[[\d, ]*\]"
)
_SETTINGS = re.compile(r"[\w:,.;>\[\]* -]*", re.ASCII)
_SETTING_WORDS = frozenset((*OPTION_NAMES, "True", "False", "true", "false", "native", "cudaMallocAsync"))
_HINTS = _words("data buffer replay cache pool env load runner trainer optim sampl metric")
"""Parts of files' names by which rules tell what a constructor makes."""

WORDS = _words("""
forward backward optimizer generate load step steps main module lambda listcomp dictcomp setcomp genexpr init
call __init__ __call__ __enter__ __exit__ __getattr__ __getitem__ __iter__ __next__ __torch_function__
__torch_dispatch__ train training evaluate eval run fit predict build setup loss compute_loss from_pretrained
load_model load_weights load_state_dict state_dict zero_grad train_step training_step validation_step weight
bias grad grads gradient gradients weights activations inputs temporaries workspace communication kv_cache
optimizer_state unknown exp_avg exp_avg_sq max_exp_avg_sq momentum_buffer square_avg grad_avg sum row_var
col_var acc_delta state states of the to a in and output outputs input saved copied device argument arguments
model models layers layer h blocks block encoder decoder embedding embeddings embed embed_tokens wte wpe attn
attention self_attn cross_attn mlp ffn feed_forward norm ln ln_1 ln_2 ln_f input_layernorm
post_attention_layernorm q_proj k_proj v_proj o_proj gate_proj up_proj down_proj c_attn c_proj c_fc lm_head
transformer experts expert router gate act act_fn dropout rotary_emb inv_freq original_inv_freq buffer
position_ids keys values key value cache caches cross length lengths window pending order indexer positions
scale zero residual conv recurrent request sequence cuBLAS cuBLASLt modelled gathered parameters parameter
reduce scatter bucket buckets flat received sent rank tensor tensors batch tokens labels mask masks ids hidden
for inside receive gather all result DDP cuda_context collectives input_ids attention_mask
""")
"""Words of memscope's own, of PyTorch's, and of any model's."""

CACHE_KINDS = _words("""
DynamicLayer DynamicSlidingWindowLayer StaticLayer StaticSlidingWindowLayer QuantizedLayer
QuantoQuantizedLayer HQQQuantizedLayer LinearAttentionLayer tensor
""")


def public_file(path: str) -> str | None:
    """A file without what lies above its package, None where it is not public.

    >>> public_file("/home/me/.venv/lib/python3.11/site-packages/torch/nn/functional.py")
    'torch/nn/functional.py'
    >>> public_file("/home/me/train.py") is None
    True
    """
    if _FROZEN.fullmatch(path):
        return path
    if _COMPILED.fullmatch(path):
        return "torchinductor_/compiled.py"
    match = _FILES.fullmatch(path)
    if match is None:
        return None
    found = match.groupdict()
    if found["package"]:
        inner = found["inner"].replace("\\", "/")
        return f"{found['package']}{inner}" if found["package"] in PACKAGES else None
    if found["library"]:
        library = found["library"].replace("\\", "/")
        return library if _is_of_python(library) else None
    if found["bare"]:
        bare = found["bare"].replace("\\", "/")
        return bare if (found["first"] in _RELATIVE and "/" in bare) or _is_of_python(bare) else None
    return (found["tree"] or found["shared"]).replace("\\", "/")


def _is_of_python(path: str) -> bool:
    """Whether a path is of a file that Python's library has: a program may have a folder ``test``, too."""
    return ".." not in path and (_LIBRARY / path).is_file()


def public_function(name: str, *, is_python: bool) -> str | None:
    """A function's name that is public whatever its file is: without the types that it was made for; else None."""
    if name.strip("<>") in WORDS or name in WORDS:
        return name
    if is_python:
        return None
    plain = name
    while (shorter := _TYPES.sub("", plain)) != plain:
        plain = shorter
    head = plain.partition("(")[0].strip().rpartition(" ")[2]
    first, is_qualified, _ = head.partition("::")
    if is_qualified and first in _NAMESPACES and _QUALIFIED.fullmatch(head):
        return head
    return head if name == head and _C_FUNCTION.fullmatch(head) else None


def file_hints(path: str) -> str:
    """What the name of a private file says of what is in it, in public words: ``optim``; empty for most."""
    *folders, name = path.replace("\\", "/").lower().split("/")
    found = {hint for hint in _HINTS if hint in name}
    if any("optim" in folder for folder in folders):
        found.add("optim")
    return "_".join(sorted(found))


def is_settings(text: str) -> bool:
    """Whether a text is settings of PyTorch's allocator and nothing else."""
    words = re.findall(r"[A-Za-z_][A-Za-z_0-9]*", text)
    return _SETTINGS.fullmatch(text) is not None and all(word in _SETTING_WORDS for word in words)


def is_public_label(text: str) -> bool:
    """Whether a label says nothing of the program: a step's number, a phase's name."""
    return text.lower() in WORDS or _STEP.fullmatch(text) is not None


def is_tensor(text: str) -> bool:
    """Whether a text is the type and shape of a tensor: ``float32 [32000, 4096]``."""
    return _TENSOR.fullmatch(text) is not None
