"""A model's class made from its configuration without weights, and what is done with it, for a dry run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from memscope.capture.dry_run.recording import DryRun
from memscope.errors import UsageError, needed_for
from memscope.gpus import GpuModel
from memscope.planning.plan import DTYPES, Plan
from memscope.trace.trace import Trace

_WITHOUT_END = 1 << 50
"""Bytes of a card that nothing runs out on."""
_MOST_WORDS = 200
_N_STEPS = 2
"""The optimizer's states are made in the first step, and are there for the whole of the second."""


def dry_run(plan: Plan, gpu: GpuModel) -> Trace:
    """The trace of a plan on a card that has no end of memory.

    Raises
    ------
    UsageError
        If transformers has no such class, it cannot be made of this configuration, or does not run in its type.
    MissingDependencyError
        If torch or transformers is not installed.
    """
    with needed_for("an estimate", "hf"):
        import torch
        import transformers
    transformers.logging.set_verbosity_error()
    config = _config_of(plan)
    # Adafactor reads norms, which no size depends on; there is no code of the user's that could take a branch.
    run = DryRun(replace(gpu, total_bytes=_WITHOUT_END), has_stacks=False, on_oom=False, says_answers=False)
    before = torch.get_default_dtype()
    work = _train if plan.mode == "train" else _generate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run.start()
        try:
            torch.set_default_dtype(getattr(torch, DTYPES[plan.dtype]))
            kept = _ended(plan, work, _model(plan, config))
        finally:
            torch.set_default_dtype(before)
            run.stop()
    del kept
    assert run.trace is not None
    return run.trace


def _ended(plan: Plan, work: Callable[[Plan, Any], object], model: Any) -> object:
    """What is kept of the work; what ends it is told as the configuration's, not as a defect."""
    heard = logging.getLogger("torch._subclasses.fake_tensor")
    level = heard.level
    heard.setLevel(logging.CRITICAL)  # it would log the traceback of what is told in a line
    try:
        return work(plan, model)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:_MOST_WORDS]
        raise UsageError(
            f"{plan.config.source}: in {plan.dtype} the model's code does not come to its end in a dry run ({why})"
        ) from error
    finally:
        heard.setLevel(level)


def _config_of(plan: Plan) -> Any:
    """The configuration as transformers has it."""
    from huggingface_hub import errors
    from transformers import AutoConfig

    strict = getattr(errors, "StrictDataclassError", ValueError)
    values = dict(plan.config.values)
    kind = values.pop("model_type", None)
    if kind is None:
        raise UsageError(f"{plan.config.source}: model_type is missing, which says what class of model it is")
    if values.get("quantization_config") is not None:
        raise UsageError(f"{plan.config.source}: its weights are quantised (quantization_config), which is not covered")
    for name in ("dtype", "torch_dtype"):  # the plan says
        values.pop(name, None)
    try:
        return AutoConfig.for_model(kind, **values)
    except (ValueError, TypeError, KeyError, strict) as error:
        why = " ".join(str(error).split())[:_MOST_WORDS]
        raise UsageError(
            f"{plan.config.source}: model_type {kind!r} is not one that transformers can make of these values ({why})"
        ) from error


def _model(plan: Plan, config: Any) -> Any:
    """The model on the device, without values."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("cuda"):
            return AutoModelForCausalLM.from_config(config, attn_implementation=plan.attention)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = " ".join(str(error).split())[:_MOST_WORDS]
        raise UsageError(f"{plan.config.source}: transformers cannot make a language model of it ({why})") from error


def _optimizer(plan: Plan, parameters: Any) -> Any:
    import torch

    made: dict[str, Callable[[], Any]] = {
        "adamw": lambda: torch.optim.AdamW(parameters, lr=1e-4),
        "adamw-fused": lambda: torch.optim.AdamW(parameters, lr=1e-4, fused=True),
        "adafactor": lambda: torch.optim.Adafactor(parameters, lr=1e-4),
        "sgd": lambda: torch.optim.SGD(parameters, lr=1e-4),
    }
    return made[plan.optimizer]()


def _train(plan: Plan, model: Any) -> object:
    import torch

    model.train()
    if plan.checkpoints:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = _optimizer(plan, list(model.parameters()))
    for _ in range(_N_STEPS):
        tokens = torch.randint(0, 2, (plan.n_samples, plan.n_tokens)).to("cuda")
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def _generate(plan: Plan, model: Any) -> object:
    import torch

    model.eval()
    with torch.no_grad():
        cache, tokens = None, torch.randint(0, 2, (plan.n_samples, plan.n_tokens)).to("cuda")
        for _ in range(plan.n_new_tokens):
            made = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, tokens = made.past_key_values, made.logits[:, -1].argmax(-1, keepdim=True)
            del made
    return model, cache
