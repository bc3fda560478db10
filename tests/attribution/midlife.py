"""Training and inference programs of many kinds, recorded in dry runs that know every owner, to be cut in mid-life.

Each is an ordinary program that has warmed up before it goes on: its model, and its optimizer's state, are there when
the part that is kept of the recording begins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional

import memscope
from memscope.capture.recorder import Recorder
from memscope.trace.trace import Trace

VOCABULARY = 4000
_WIDTH = 512
_N_STEPS = 4


def _llama(dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    shape = {"num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": VOCABULARY}
    config = transformers.LlamaConfig(
        **{"hidden_size": _WIDTH, "intermediate_size": 3 * _WIDTH, **shape, **settings},
    )
    return transformers.LlamaForCausalLM(config).to("cuda", dtype)


def _gpt2(**settings: Any) -> Any:
    config = transformers.GPT2Config(n_embd=_WIDTH, n_layer=5, n_head=8, vocab_size=VOCABULARY, **settings)
    return transformers.GPT2LMHeadModel(config).to("cuda")


def _bert() -> Any:
    config = transformers.BertConfig(
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_hidden_layers=4,
        num_attention_heads=8,
        vocab_size=VOCABULARY,
    )
    return transformers.BertForMaskedLM(config).to("cuda")


def _vit() -> Any:
    config = transformers.ViTConfig(
        hidden_size=_WIDTH,
        intermediate_size=4 * _WIDTH,
        num_hidden_layers=5,
        num_attention_heads=8,
        image_size=64,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config).to("cuda")


def _tokens(n: int = _N_STEPS, shape: tuple[int, int] = (2, 128)) -> Iterator[torch.Tensor]:
    for _ in range(n):
        yield torch.randint(0, VOCABULARY, shape).to("cuda")


def _train(
    model: Any,
    optimizer: Any,
    *,
    n_steps: int = _N_STEPS,
    n_accumulated: int = 1,
    set_to_none: bool = True,
    autocast: bool = False,
    clips: bool = True,
    after: Callable[[], None] = lambda: None,
    decoder: bool = False,
) -> None:
    model.train()
    for k, tokens in enumerate(_tokens(n_steps * n_accumulated)):
        with torch.autocast("cuda", torch.bfloat16) if autocast else nullcontext():
            given = {"decoder_input_ids": tokens} if decoder else {}
            loss = model(input_ids=tokens, labels=tokens, **given).loss
        (loss / n_accumulated).backward()
        if (k + 1) % n_accumulated:
            continue
        if clips:
            nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        after()


def llama_adamw_foreach() -> Any:
    """Llama, AdamW with its multi-tensor step."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    _train(model, optimizer)
    return model, optimizer


def llama_adamw_fused() -> Any:
    """Llama in bfloat16, AdamW with its fused step."""
    model = _llama(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    _train(model, optimizer)
    return model, optimizer


def llama_sgd() -> Any:
    """Llama, SGD without a state."""
    model = _llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _train(model, optimizer)
    return model, optimizer


def llama_sgd_momentum() -> Any:
    """Llama, SGD with momentum."""
    model = _llama()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    _train(model, optimizer)
    return model, optimizer


def gpt2_adamw_loop() -> Any:
    """GPT-2 with tied embeddings, AdamW parameter by parameter."""
    model = _gpt2()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    _train(model, optimizer)
    return model, optimizer


def gpt2_adamw_fused() -> Any:
    """GPT-2 with tied embeddings, fused AdamW, no clipping."""
    model = _gpt2()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    _train(model, optimizer, clips=False)
    return model, optimizer


def bert_autocast() -> Any:
    """BERT in bfloat16 autocast, AdamW."""
    model = _bert()
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, autocast=True)
    return model, optimizer


def llama_accumulating() -> Any:
    """Llama, gradients of three batches, AdamW."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, n_accumulated=3)
    return model, optimizer


def llama_zeroed() -> Any:
    """Llama, gradients that are filled with zeros and stay."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, set_to_none=False)
    return model, optimizer


def llama_zeroed_fused() -> Any:
    """Llama, gradients that stay, and a step that allocates nothing."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    _train(model, optimizer, set_to_none=False, clips=False)
    return model, optimizer


def llama_masters() -> Any:
    """Llama in bfloat16 with float32 masters that AdamW steps."""
    model = _llama(torch.bfloat16)
    parameters = list(model.parameters())
    with memscope.tag("optimizer_state: masters"):
        masters = [p.detach().clone().float() for p in parameters]
    optimizer = torch.optim.AdamW(masters)
    for tokens in _tokens():
        model(input_ids=tokens, labels=tokens).loss.backward()
        for master, parameter in zip(masters, parameters, strict=True):
            assert parameter.grad is not None
            master.grad = parameter.grad.float()
            parameter.grad = None
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)
    return model, optimizer, masters


class _LoraLinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Linear(base.in_features, rank, bias=False, device="cuda", dtype=base.weight.dtype)
        self.b = nn.Linear(rank, base.out_features, bias=False, device="cuda", dtype=base.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.b(self.a(x))


def _with_adapters(model: Any, rank: int = 16) -> Any:
    model.requires_grad_(False)
    for layer in model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, _LoraLinear(getattr(layer.self_attn, name), rank))
    return model


def llama_lora() -> Any:
    """Llama in bfloat16 with LoRA on its attention, AdamW."""
    model = _with_adapters(_llama(torch.bfloat16))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    _train(model, optimizer)
    return model, optimizer


def llama_frozen() -> Any:
    """Llama whose lower layers and embedding are frozen."""
    model = _llama()
    model.model.embed_tokens.requires_grad_(False)
    for layer in model.model.layers[:3]:
        layer.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    _train(model, optimizer)
    return model, optimizer


def llama_head_only() -> Any:
    """Llama, of which only the head and the last norm are trained."""
    model = _llama()
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    model.model.norm.requires_grad_(True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    _train(model, optimizer)
    return model, optimizer


def llama_tied_checkpointing() -> Any:
    """Llama with tied embeddings and gradient checkpointing."""
    model = _llama(tie_word_embeddings=True, use_cache=False)
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer)
    return model, optimizer


def gpt2_average() -> Any:
    """GPT-2 with an exponential moving average of its weights."""
    model = _gpt2()
    average = copy.deepcopy(model).requires_grad_(False)
    for name, parameter in average.named_parameters():
        memscope.tag(parameter, f"optimizer_state: average of {name}")

    def update() -> None:
        with torch.no_grad():
            for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(parameter, 0.1)

    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, after=update)
    return model, average, optimizer


def llama_amsgrad() -> Any:
    """Llama, AMSGrad: three moments."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    _train(model, optimizer)
    return model, optimizer


def llama_rmsprop() -> Any:
    """Llama, RMSprop: one moment."""
    model = _llama()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-4)
    _train(model, optimizer)
    return model, optimizer


def llama_adafactor() -> Any:
    """Llama, Adafactor: a row and a column for each matrix."""
    model = _llama()
    optimizer = torch.optim.Adafactor(model.parameters())
    _train(model, optimizer)
    return model, optimizer


def llama_preference() -> Any:
    """Llama beside a frozen copy of itself, which the loss refers to."""
    model, reference = _llama(), _llama().eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    model.train()
    for tokens in _tokens():
        with torch.no_grad():
            expected = reference(input_ids=tokens).logits
        logits = model(input_ids=tokens).logits
        functional.mse_loss(logits, expected).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, reference, optimizer


def llama_preference_sgd() -> Any:
    """Llama beside a frozen copy of itself, stepped by SGD without a state."""
    model, reference = _llama(), _llama().eval().requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for tokens in _tokens():
        with torch.no_grad():
            expected = reference(input_ids=tokens).logits
        logits = model(input_ids=tokens).logits
        functional.mse_loss(logits, expected).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, reference, optimizer


def mixtral_adamw() -> Any:
    """A mixture of experts in bfloat16."""
    config = transformers.MixtralConfig(
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        vocab_size=VOCABULARY,
    )
    model = transformers.MixtralForCausalLM(config).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer)
    return model, optimizer


def t5_adamw() -> Any:
    """An encoder and a decoder."""
    config = transformers.T5Config(
        d_model=_WIDTH, d_ff=2 * _WIDTH, d_kv=64, num_layers=3, num_heads=8, vocab_size=VOCABULARY
    )
    model = transformers.T5ForConditionalGeneration(config).to("cuda")
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, decoder=True)
    return model, optimizer


def vit_adamw() -> Any:
    """A vision transformer, plain loop, gradients dropped first."""
    model = _vit()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(_N_STEPS):
        images, target = torch.randn(8, 3, 64, 64).to("cuda"), torch.randint(0, 2, (8,)).to("cuda")
        optimizer.zero_grad()
        functional.cross_entropy(model(images).logits, target).backward()
        optimizer.step()
    return model, optimizer


def cnn_momentum() -> Any:
    """Convolutions with batch norms, SGD with momentum."""
    layers: list[nn.Module] = []
    width = 3
    for wider in (64, 128, 256, 256, 512):
        layers += [nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
        width = wider
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)).to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(_N_STEPS):
        images, target = torch.randn(8, 3, 32, 32).to("cuda"), torch.randint(0, 10, (8,)).to("cuda")
        optimizer.zero_grad()
        functional.cross_entropy(model(images), target).backward()
        optimizer.step()
    return model, optimizer


def llama_backward_only() -> Any:
    """Forward and backward passes without an optimizer: gradients stay."""
    model = _llama()
    for tokens in _tokens():
        model(input_ids=tokens, labels=tokens).loss.backward()
    return model


def llama_forward() -> Any:
    """Llama is evaluated."""
    model = _llama(torch.bfloat16).eval()
    with torch.inference_mode():
        for tokens in _tokens():
            model(input_ids=tokens, use_cache=False)
    return model


def llama_evaluated() -> Any:
    """Llama is evaluated in the middle of its training, AdamW's moments beside it."""
    model = _llama()
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, n_steps=1)
    model.eval()
    with torch.no_grad():
        for tokens in _tokens(8):
            model(input_ids=tokens, use_cache=False)
    return model, optimizer


def llama_forward_with_graph() -> Any:
    """Forward passes that record a graph and are followed by no backward pass."""
    model = _llama()
    for tokens in _tokens():
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    return model, loss


def gpt2_forward() -> Any:
    """GPT-2 is evaluated."""
    model = _gpt2().eval()
    with torch.no_grad():
        for tokens in _tokens():
            model(input_ids=tokens, use_cache=False)
    return model


def bert_forward() -> Any:
    """BERT is evaluated."""
    model = _bert().half().eval()
    with torch.no_grad():
        for tokens in _tokens():
            model(input_ids=tokens)
    return model


def llama_generate() -> Any:
    """Llama generates into caches that grow."""
    model = _llama(torch.bfloat16).eval()
    with torch.inference_mode():
        for tokens in _tokens(3, (4, 96)):
            model.generate(tokens, max_new_tokens=16, do_sample=False, pad_token_id=0)
    return model


def llama_generate_static() -> Any:
    """Llama generates into a cache that lasts."""
    model = _llama(torch.bfloat16).eval()
    cache = transformers.StaticCache(config=model.config, max_cache_len=512)
    with torch.inference_mode():
        for k, token in enumerate(_tokens(24, (4, 1))):
            model(
                input_ids=token, past_key_values=cache, use_cache=True, cache_position=torch.tensor([k], device="cuda")
            )
    return model, cache


class _ReplacingAdam(torch.optim.Optimizer):
    """An optimizer that makes new tensors for everything at each step, as a first one by hand often does."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state, grad = self.state[p], p.grad.data
                state["m"] = 0.9 * state.get("m", torch.zeros_like(p.data)) + 0.1 * grad
                state["v"] = 0.99 * state.get("v", torch.zeros_like(p.data)) + 0.01 * grad * grad
                p.data = p.data - 1e-3 * state["m"] / (state["v"].sqrt() + 1e-8)


class _ByHandAdam(torch.optim.Optimizer):
    """An optimizer whose moments are new tensors at each step; the weights are changed where they lie."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state, grad = self.state[p], p.grad.data
                state["m"] = 0.9 * state.get("m", torch.zeros_like(p.data)) + 0.1 * grad
                state["v"] = 0.99 * state.get("v", torch.zeros_like(p.data)) + 0.01 * grad * grad
                p.data -= 1e-3 * state["m"] / (state["v"].sqrt() + 1e-8)


def llama_by_hand() -> Any:
    """Llama, an optimizer written by hand that replaces its moments."""
    model = _llama()
    optimizer = _ByHandAdam(model.parameters())
    _train(model, optimizer, set_to_none=False, clips=False)
    return model, optimizer


def llama_replaced() -> Any:
    """Llama, an optimizer written by hand that replaces weights and moments."""
    model = _llama()
    optimizer = _ReplacingAdam(model.parameters())
    _train(model, optimizer, clips=False)
    return model, optimizer


PROGRAMS: dict[str, Callable[[], Any]] = {
    function.__name__: function
    for function in (
        llama_adamw_foreach,
        llama_adamw_fused,
        llama_sgd,
        llama_sgd_momentum,
        gpt2_adamw_loop,
        gpt2_adamw_fused,
        bert_autocast,
        llama_accumulating,
        llama_zeroed,
        llama_zeroed_fused,
        llama_masters,
        llama_lora,
        llama_frozen,
        llama_head_only,
        llama_tied_checkpointing,
        gpt2_average,
        llama_amsgrad,
        llama_rmsprop,
        llama_adafactor,
        llama_preference,
        llama_preference_sgd,
        mixtral_adamw,
        t5_adamw,
        vit_adamw,
        cnn_momentum,
        llama_backward_only,
        llama_forward,
        llama_evaluated,
        llama_forward_with_graph,
        gpt2_forward,
        bert_forward,
        llama_generate,
        llama_generate_static,
        llama_by_hand,
        llama_replaced,
    )
}
"""The programs by their names."""


def record_program(name: str) -> Trace:
    """A dry run of a program on an 80 GB device; what it holds at its end is still there."""
    torch.manual_seed(0)
    recorder = Recorder(backend="dry-run", gpu="A100-80GB", conf="")
    with recorder:
        held = PROGRAMS[name]()
    del held
    return recorder.trace
