"""Dry runs beside histories that the CUDA builds of PyTorch recorded of the same programs."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from memscope.gpus import GpuModel
from tests.oracles import ORACLE, needs_shared

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [needs_shared, pytest.mark.filterwarnings("ignore")]
_LAYOUT_SLACK_BYTES = 2 << 20
"""Scratch memory inside kernels, which a dry run does not see, can need one small segment more."""


def _recorded(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((ORACLE / "torch-2.11.0" / f"{name}.json").read_text())
    return record


def _train(model: Any, vocab: int, spec: dict[str, Any]) -> int:
    """The recorded program: AdamW, clipped gradients, batches halved when they do not fit. Returns the final batch."""
    model.train()
    if spec.get("ckpt"):
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=bool(spec.get("fused")))
    rng, batch = random.Random(1), spec["batch"]
    for _ in range(spec["steps"]):
        while True:
            try:
                length = rng.randint(spec["seq"] // 4, spec["seq"]) if spec.get("varlen") else spec["seq"]
                tokens = torch.randint(0, vocab, (batch, length)).cuda()
                loss = model(input_ids=tokens, labels=tokens).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                break
            except torch.OutOfMemoryError:
                batch //= 2
            tokens = loss = None
            optimizer.zero_grad()
        loss.item()
        del loss, tokens
    return batch


def _gpt2(**shape: int) -> tuple[Any, int]:
    config = transformers.GPT2Config(**shape)
    with torch.device("cuda"):
        return transformers.GPT2LMHeadModel(config), config.vocab_size


def _llama_1b() -> tuple[Any, int]:
    config = transformers.LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return transformers.LlamaForCausalLM(config), config.vocab_size
    finally:
        torch.set_default_dtype(default)


@pytest.mark.parametrize(
    ("name", "build", "capability"),
    [
        ("llm_gpt2_tiny_train", lambda: _gpt2(n_layer=4, n_embd=256, n_head=4, vocab_size=8192), (8, 0)),
        ("llm_gpt2_small_train", _gpt2, (8, 0)),
        pytest.param("llm_llama1b_train_ckpt", _llama_1b, (9, 0), marks=pytest.mark.slow),
        pytest.param("llm_llama1b_train_oom", _llama_1b, (9, 0), marks=pytest.mark.slow),
    ],
)
def test_the_peak_is_what_pytorch_allocated_to_the_byte(
    name: str, build: Any, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from memscope.capture.dry_run.kernels.workspaces import Needed, Workspaces
    from memscope.capture.dry_run.recording import DryRun

    # Where these were recorded every value read as zero, so that masks were made which a GPU's run leaves out.
    monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda *_: True)

    class Recorded(Workspaces):
        """Which are kept is a matter of the release; the recorded device gave all threads the same cuBLAS handle."""

        def needed(self, kind: str, args: tuple[Any, ...], stream: Any, **_: bool) -> Needed:
            return super().needed(kind, args, stream)

    monkeypatch.setattr("memscope.capture.dry_run._operations.Workspaces", lambda gpu, _: Recorded(gpu, "2.11.0"))
    recorded = _recorded(name)
    gpu = GpuModel("recorded", "recorded", recorded["fake_total_bytes"], capability, 108, context_bytes=0)
    run = DryRun(gpu, recorded["PYTORCH_CUDA_ALLOC_CONF"], has_stacks=False)
    run.start()
    try:
        model, vocab = build()
        batch = _train(model, vocab, recorded["spec"])
    finally:
        run.stop()
    stats, simulated = recorded["memory_stats"], run.device.memory_stats()
    assert simulated["allocated_bytes.all.peak"] == stats["allocated_bytes.all.peak"]
    assert abs(simulated["reserved_bytes.all.peak"] - stats["reserved_bytes.all.peak"]) <= _LAYOUT_SLACK_BYTES
    assert simulated["num_ooms"] == recorded["events"].get("oom", 0)
    assert (batch < recorded["spec"]["batch"]) == bool(simulated["num_ooms"])
