"""Hugging Face models in a dry run, and the example scripts."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.categories import Category
from memscope.trace.container import read_container
from memscope.trace.schema import MarkKind
from memscope.trace.trace import Trace
from tests.capture.programs import dry_run, owners, requested
from tests.conftest import Outcome

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Run = Callable[..., Outcome]


def _run(memscope: Run, tmp_path: Path, *arguments: str) -> tuple[Outcome, Trace]:
    script, *options = arguments
    path = tmp_path / "out.memscope"
    outcome = memscope("run", "--dry-run", "-o", path, EXAMPLES / script, *options)
    assert outcome.code == 0, outcome.err
    return outcome, read_container(path)


def test_a_llama_training_run_is_accounted_to_the_byte(memscope: Run, tmp_path: Path) -> None:
    shape = "--hidden 128 --heads 8 --kv-heads 2 --intermediate 256 --layers 2 --vocab 512 --seq 64"
    outcome, trace = _run(memscope, tmp_path, "train_llama.py", *shape.split())
    block = 128 * 128 * 2 + 2 * 128 * 32 + 3 * 128 * 256 + 2 * 128
    parameter_bytes = 2 * (2 * 512 * 128 + 2 * block + 128)
    weights = requested(trace, Category.WEIGHTS)
    assert sum(weights.values()) == parameter_bytes
    first, second, *_ = outcome.out.splitlines()
    assert first == f"{parameter_bytes // 2:,} parameters in bfloat16: {parameter_bytes:,} bytes of weights"
    assert second.startswith("step 0: loss 1.000, peak ")
    assert "model.rotary_emb.inv_freq" in requested(trace, Category.WORKSPACE)
    assert weights["model.layers.1.mlp.up_proj.weight"] == 2 * 128 * 256
    assert sum(requested(trace, Category.GRADIENTS).values()) == 2 * parameter_bytes  # made anew in each of two steps
    assert sum(requested(trace, Category.OPTIMIZER_STATE).values()) == 2 * parameter_bytes
    n_steps = int((trace.marks.kind == MarkKind.STEP).sum())
    assert n_steps == 2


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_with_gradient_checkpointing_names_are_what_they_are_without() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4, vocab_size=256
    )

    def recorded(checkpoints: bool) -> tuple[Trace, set[str]]:
        with dry_run() as rec:
            model = LlamaForCausalLM(config).cuda().train()
            if checkpoints:
                model.gradient_checkpointing_enable()
            optimizer = torch.optim.AdamW(model.parameters())
            for _ in range(2):
                tokens = torch.randint(0, 256, (2, 16), device="cuda")
                model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        return rec.trace, {path for path, _ in model.named_modules()}

    (plain, _), (again, paths) = recorded(False), recorded(True)
    for category in (Category.WEIGHTS, Category.GRADIENTS, Category.OPTIMIZER_STATE, Category.WORKSPACE):
        assert requested(again, category) == requested(plain, category)
    parts = {path.rpartition(".")[2] for path in paths if path.startswith("model.layers.")}
    labels = {label for _, label in owners(again).values()}
    assert labels.isdisjoint(parts | {"LlamaDecoderLayer"})
    assert "model.layers.1.mlp.down_proj" in labels


def test_a_growing_cache_is_the_models_memory(memscope: Run, tmp_path: Path) -> None:
    shape = "--layers 2 --hidden 64 --heads 4 --vocab 512 --batch 2 --prompt 16 --new-tokens 5"
    outcome, trace = _run(memscope, tmp_path, "generate_gpt2.py", *shape.split())
    assert outcome.out == "2 sequences of 21 tokens\n"
    keys = [
        int(trace.size_bytes[event])
        for event, (category, label) in owners(trace).items()
        if category == Category.KV_CACHE and label == "cache 1 layer 1 keys"
    ]
    token_bytes = 2 * 64 * 2  # batch, width, bytes of a half
    assert [size // token_bytes for size in keys if size >= 16 * token_bytes] == [16, 17, 18, 19, 20]
    labels = {trace.strings[label] for label in trace.marks.label_id}
    assert labels == {"generate"}


def test_a_program_can_record_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / "record_context.py"))["main"]
    main(tmp_path / "own.memscope")
    trace = read_container(tmp_path / "own.memscope")
    assert int((trace.marks.kind == MarkKind.STEP).sum()) == 3
    assert requested(trace, Category.UNKNOWN) == {"replay buffer": 1024 * 512 * 4}
    assert "allocations with a known owner" in capsys.readouterr().out
