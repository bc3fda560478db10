from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from memscope.gpus import find_gpu
from memscope.planning.estimate import card_fit, estimate, kind_of
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


def test_the_verdict_on_a_card_does_not_depend_on_the_others():
    """Attention in half precision is fused on an A100, and made by products on a T4."""
    asked = plan(dtype="bf16", n_samples=8)
    newer, older = (
        replace(find_gpu(name), total_bytes=120_000_000, context_bytes=0) for name in ("A100-80GB", "T4-16GB")
    )
    alone = [estimate(asked, [card]).cards[0] for card in (newer, older)]
    assert [card.fits for card in alone] == [True, False]
    assert alone[0].peak_allocated_bytes < alone[1].peak_allocated_bytes
    for cards in ([newer, older], [older, newer], [older, find_gpu("H100-80GB"), newer, older]):
        told = []
        found = estimate(asked, cards, told.append)
        assert len(told) == found.n_runs == len({kind_of(card) for card in cards})
        assert [card for card in found.cards if card.name == newer.name] == alone[:1]
        assert {card for card in found.cards if card.name == older.name} == set(alone[1:])
        assert found.card == found.cards[0]
        assert found.peak_allocated_bytes == int(found.device.peak().allocated_bytes)


def test_cards_of_a_kind_would_be_dry_run_alike():
    asked, one = plan(n_samples=2), find_gpu("A100-80GB")
    other = replace(one, name="other", device_name="another", total_bytes=1 << 30, context_bytes=0, is_nominal=True)
    assert kind_of(one) == kind_of(other)
    ledgers = [estimate(asked, [card]).device.peak().ledger for card in (one, other)]
    assert ledgers[0].rows == ledgers[1].rows
