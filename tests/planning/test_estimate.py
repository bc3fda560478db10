import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from memscope.planning.estimate import card_fit, estimate
from memscope.trace.categories import Category
from tests.planning.models import LLAMA, card, plan, trained
from tests.techniques.programs import dry_run, peaks


def n_parameters():
    values = {name: value for name, value in LLAMA.items() if name != "model_type"}
    with torch.device("meta"):
        return sum(p.numel() for p in LlamaForCausalLM(LlamaConfig(**values)).parameters())


def test_weights_gradients_and_states_are_the_models():
    device = trained().device
    for category, each in ((Category.WEIGHTS, 1), (Category.GRADIENTS, 1), (Category.OPTIMIZER_STATE, 2)):
        assert int(device.category_usage[category].max()) == 4 * n_parameters() * each


def test_the_peaks_are_those_of_a_script_that_does_the_same():
    def script():
        values = {name: value for name, value in LLAMA.items() if name != "model_type"}
        with torch.device("cuda"):
            model = LlamaForCausalLM._from_config(LlamaConfig(**values), attn_implementation="sdpa")
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for _ in range(2):
            tokens = torch.randint(0, 2, (4, 128)).to("cuda")
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, optimizer

    truth = peaks(dry_run(script))
    assert (trained().peak_allocated_bytes, trained().peak_reserved_bytes) == (
        truth.allocated_bytes,
        truth.reserved_bytes,
    )


def test_a_card_is_applied_afterwards():
    large, small = trained().cards
    assert (large.fits, small.fits) == (True, False)
    assert small.capacity_bytes == 40 << 20
    assert small.peak_reserved_bytes == large.peak_reserved_bytes == trained().peak_reserved_bytes
    assert small.spare_bytes < 0 < large.spare_bytes


def test_cached_memory_may_be_given_back_to_fit():
    device = trained().device
    peak = trained().peak_allocated_bytes
    assert not card_fit(device, card(str(peak - 1))).fits
    assert card_fit(device, card(str(trained().peak_reserved_bytes))).n_retries == 0


@pytest.mark.parametrize(
    ("options", "less"),
    [
        ({"optimizer": "sgd"}, True),
        ({"dtype": "bf16"}, True),
        ({"checkpoints": True, "n_samples": 16}, True),
        ({"attention": "eager", "n_samples": 16, "n_tokens": 512, "dtype": "bf16"}, False),
    ],
)
def test_options_change_what_is_taken(options, less):
    """Only the option named first differs."""
    _, *same = options
    base = {"n_samples": 4, **{other: options[other] for other in same}}
    before, after = (estimate(plan(**o), [card("1GiB")]).peak_allocated_bytes for o in (base, {**base, **options}))
    assert (after < before) is less
    assert after != before


def test_a_generation_keeps_keys_and_values_of_every_token():
    found = estimate(plan(mode="generate", n_samples=2, n_new_tokens=4), [card("1GiB")])
    # two tensors, three layers, two samples, two heads of 64 float32, 131 tokens
    last = 2 * 3 * 2 * 2 * 64 * 4 * 131
    assert int(found.device.category_usage[Category.KV_CACHE].max()) >= last
    assert Category.GRADIENTS not in found.device.category_usage
