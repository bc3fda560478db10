"""Training and inference programs of many kinds, recorded in dry runs that know every owner, to be cut in mid-life.

Each is an ordinary program that has warmed up before it goes on: its model, and its optimizer's state, are there when
the part that is kept of the recording begins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
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


def _mixtral() -> Any:
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
    return transformers.MixtralForCausalLM(config).to("cuda", torch.bfloat16)


def _t5() -> Any:
    config = transformers.T5Config(
        d_model=_WIDTH, d_ff=2 * _WIDTH, d_kv=64, num_layers=3, num_heads=8, vocab_size=VOCABULARY
    )
    return transformers.T5ForConditionalGeneration(config).to("cuda")


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


class _LoraLinear(nn.Module):
    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Linear(base.in_features, rank, bias=False, device="cuda", dtype=base.weight.dtype)
        self.b = nn.Linear(rank, base.out_features, bias=False, device="cuda", dtype=base.weight.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.b(self.a(x))


def _with_adapters(rank: int = 16) -> Any:
    model = _frozen(_llama(torch.bfloat16))
    for layer in model.model.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(layer.self_attn, name, _LoraLinear(getattr(layer.self_attn, name), rank))
    return model


def _frozen(model: Any, *trained: str) -> Any:
    """A model of which only the parts with these names are trained."""
    model.requires_grad_(False)
    for name in trained:
        model.get_submodule(name).requires_grad_(True)
    return model


def _half_frozen() -> Any:
    model = _llama()
    for part in (model.model.embed_tokens, *model.model.layers[:3]):
        part.requires_grad_(False)
    return model


def _checkpointing() -> Any:
    model = _llama(tie_word_embeddings=True, use_cache=False)
    model.gradient_checkpointing_enable()
    return model


class _ByHandAdam(torch.optim.Optimizer):
    """An optimizer as a first one by hand often is: each step makes new moments, and new weights or not."""

    def __init__(self, parameters: Any, *, replaces: bool) -> None:
        super().__init__(parameters, {})
        self.replaces = replaces

    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state, grad = self.state[p], p.grad.data
                state["m"] = 0.9 * state.get("m", torch.zeros_like(p.data)) + 0.1 * grad
                state["v"] = 0.99 * state.get("v", torch.zeros_like(p.data)) + 0.01 * grad * grad
                if self.replaces:
                    p.data = p.data - 1e-3 * state["m"] / (state["v"].sqrt() + 1e-8)
                else:
                    p.data -= 1e-3 * state["m"] / (state["v"].sqrt() + 1e-8)


def _training(make: Callable[[], Any], optimize: Callable[[Any], Any], **settings: Any) -> Callable[[], Any]:
    """A program that trains a model for some steps."""

    def program() -> Any:
        model = make()
        optimizer = optimize([p for p in model.parameters() if p.requires_grad])
        _train(model, optimizer, **settings)
        return model, optimizer

    return program


def _evaluating(make: Callable[[], Any], **settings: Any) -> Callable[[], Any]:
    """A program that calls a model without gradients."""

    def program() -> Any:
        model = make().eval()
        with torch.no_grad():
            for tokens in _tokens():
                model(input_ids=tokens, **settings)
        return model

    return program


def _preferring(optimize: Callable[[Any], Any]) -> Callable[[], Any]:
    """A program that trains a model beside a frozen copy of itself, which the loss refers to."""

    def program() -> Any:
        model, reference = _llama(), _llama().eval().requires_grad_(False)
        optimizer = optimize(model.parameters())
        for tokens in _tokens():
            with torch.no_grad():
                expected = reference(input_ids=tokens).logits
            logits = model(input_ids=tokens).logits
            functional.mse_loss(logits, expected).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, reference, optimizer

    return program


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


_ADAMW, _BF16 = torch.optim.AdamW, torch.bfloat16

PROGRAMS: dict[str, Callable[[], Any]] = {
    "llama_adamw_foreach": _training(_llama, partial(_ADAMW, foreach=True)),
    "llama_adamw_fused": _training(partial(_llama, _BF16), partial(_ADAMW, fused=True)),
    "llama_sgd": _training(_llama, partial(torch.optim.SGD, lr=0.1)),
    "llama_sgd_momentum": _training(_llama, partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
    "gpt2_adamw_loop": _training(_gpt2, partial(_ADAMW, foreach=False)),
    "gpt2_adamw_fused": _training(_gpt2, partial(_ADAMW, fused=True), clips=False),
    "bert_autocast": _training(_bert, _ADAMW, autocast=True),
    "llama_accumulating": _training(_llama, _ADAMW, n_accumulated=3),
    "llama_zeroed": _training(_llama, _ADAMW, set_to_none=False),
    "llama_zeroed_fused": _training(_llama, partial(_ADAMW, fused=True), set_to_none=False, clips=False),
    "llama_masters": llama_masters,
    "llama_lora": _training(_with_adapters, _ADAMW),
    "llama_frozen": _training(_half_frozen, _ADAMW),
    "llama_head_only": _training(lambda: _frozen(_llama(), "lm_head", "model.norm"), _ADAMW),
    "llama_tied_checkpointing": _training(_checkpointing, _ADAMW),
    "gpt2_average": gpt2_average,
    "llama_amsgrad": _training(_llama, partial(_ADAMW, amsgrad=True)),
    "llama_rmsprop": _training(_llama, partial(torch.optim.RMSprop, lr=1e-4)),
    "llama_adafactor": _training(_llama, torch.optim.Adafactor),
    "llama_preference": _preferring(_ADAMW),
    "llama_preference_sgd": _preferring(partial(torch.optim.SGD, lr=0.1)),
    "mixtral_adamw": _training(_mixtral, _ADAMW),
    "t5_adamw": _training(_t5, _ADAMW, decoder=True),
    "vit_adamw": vit_adamw,
    "cnn_momentum": cnn_momentum,
    "llama_backward_only": llama_backward_only,
    "llama_forward": _evaluating(partial(_llama, _BF16), use_cache=False),
    "llama_evaluated": llama_evaluated,
    "llama_forward_with_graph": llama_forward_with_graph,
    "gpt2_forward": _evaluating(_gpt2, use_cache=False),
    "bert_forward": _evaluating(lambda: _bert().half()),
    "llama_generate": llama_generate,
    "llama_generate_static": llama_generate_static,
    "llama_by_hand": _training(_llama, partial(_ByHandAdam, replaces=False), set_to_none=False, clips=False),
    "llama_replaced": _training(_llama, partial(_ByHandAdam, replaces=True), clips=False),
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
