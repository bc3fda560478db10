"""What is told of memory from before a recording, against programs whose owners identity knows."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from memscope.analysis import Analysis
from memscope.attribution._predating import CERTAIN, LIKELY
from memscope.attribution.attribution import attribute
from memscope.attribution.ledger import coverage_at, ledger_at
from memscope.capture.recorder import Recorder
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID
from memscope.trace.trace import Trace
from tests.attribution.cut import without_first_events
from tests.attribution.from_stacks import without_backward_stacks, without_identity
from tests.attribution.judging import Judged, judge
from tests.attribution.midlife import PROGRAMS, record_program
from tests.oracles import REAL, needs_shared

CUTS = (0.33, 0.5, 0.75)
QUICK = ("gpt2_adamw_fused", "llama_masters", "llama_lora", "gpt2_forward", "llama_preference_sgd", "llama_replaced")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PROGRAMS]
SURE = 0.9

pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def recorded(name: str) -> Trace:
    """A program's trace, recorded once."""
    return record_program(name)


@cache
def judged(name: str) -> tuple[Judged, ...]:
    """What is told of a program's trace, cut in several places."""
    return tuple(judge(recorded(name), share) for share in CUTS)


@pytest.mark.parametrize("name", NAMES)
def test_nearly_all_that_is_told_surely_is_right(name: str) -> None:
    told = sum(one.told_bytes(SURE) for one in judged(name))
    assert told > 0
    assert sum(one.right_bytes(SURE) for one in judged(name)) >= 0.98 * told


def test_what_is_told_surely_is_right_in_99_of_100_bytes_together() -> None:
    told, right = (
        sum(sum_bytes(one) for name in QUICK for one in judged(name))
        for sum_bytes in (lambda one: one.told_bytes(SURE), lambda one: one.right_bytes(SURE))
    )
    assert right >= 0.99 * told


@pytest.mark.parametrize("confidence", [CERTAIN, LIKELY])
def test_a_confidence_is_no_more_than_what_it_is_worth(confidence: float) -> None:
    found = [one.confusion[confidence] for name in QUICK for one in judged(name) if confidence in one.confusion]
    assert sum(int(np.trace(one)) for one in found) >= confidence * sum(int(one.sum()) for one in found)


@pytest.mark.parametrize("name", ["gpt2_adamw_fused", "llama_masters", "llama_lora"])
def test_most_of_a_training_in_mid_life_is_told(name: str) -> None:
    one = judged(name)[1]
    assert one.told_bytes() >= 0.95 * one.known_bytes
    assert one.summed_bytes() >= 0.95 * one.told_bytes()


def test_a_second_model_is_not_called_an_optimizers_state() -> None:
    for one in judged("llama_preference_sgd"):
        assert all(not found[Category.WEIGHTS, Category.OPTIMIZER_STATE] for found in one.confusion.values())


@cache
def cut(name: str, share: float = 0.5) -> DeviceLifetimes:
    """A program's lifetimes, begun in mid-life, as on CUDA."""
    trace = without_first_events(recorded(name), int(share * recorded(name).n_events))
    return DeviceLifetimes(without_identity(without_backward_stacks(trace)), 0)


@pytest.mark.parametrize("share", CUTS)
def test_the_ledger_closes_at_every_event(share: float) -> None:
    lifetimes = cut("gpt2_adamw_fused", share)
    attribution = attribute(lifetimes)
    for event in np.linspace(-1, lifetimes.last_event, 25).astype(int).tolist():
        ledger = ledger_at(lifetimes, attribution, event)
        assert sum(row.bytes for row in ledger.rows) == ledger.total_bytes
        coverage = coverage_at(lifetimes, attribution, event)
        assert coverage.by_source["inferred"] == sum(one.bytes for one in coverage.inferred)


def test_what_is_told_names_its_evidence() -> None:
    attribution = attribute(cut("gpt2_adamw_fused"))
    told = {one.category: one.reason for one in attribution.inferences if one.confidence == CERTAIN}
    n = len([name for name in recorded("gpt2_adamw_fused").strings if name.endswith(".grad")])
    assert f"the {n} gradients of a backward pass" in told[Category.WEIGHTS]
    assert f"2 × the sizes of the {n} gradients" in told[Category.OPTIMIZER_STATE]


def test_only_what_predates_and_is_unknown_is_inferred() -> None:
    lifetimes = cut("gpt2_adamw_fused")
    attribution = attribute(lifetimes)
    inferred = attribution.source == CategorySource.INFERRED
    assert (lifetimes.allocations.alloc_event[inferred] == NONE_ID).all()
    assert ((attribution.inference_id != NONE_ID) == inferred).all()
    assert (attribution.rule_id[inferred] == NONE_ID).all()


def test_a_recording_from_the_start_has_nothing_inferred() -> None:
    attribution = attribute(DeviceLifetimes(without_identity(recorded("gpt2_adamw_fused")), 0))
    assert not (attribution.source == CategorySource.INFERRED).any()
    assert not attribution.inferences


def test_identity_goes_before_what_is_inferred() -> None:
    trace = without_first_events(recorded("gpt2_adamw_fused"), recorded("gpt2_adamw_fused").n_events // 2)
    attribution = attribute(DeviceLifetimes(trace, 0))
    by_source = np.bincount(attribution.source, minlength=len(CategorySource))
    assert by_source[CategorySource.IDENTITY] > 10 * by_source[CategorySource.INFERRED]


REAL_SHARES = {
    "lm-forward-torch2.11": 0.99,
    "lm-train-midlife-torch2.10": 0.99,
    "lm-train-torch2.6": 0.99,
    "lm-windows-midlife": 0.99,
    "llama-kv-quant-blocks-only": 0.99,
}


@needs_shared
@pytest.mark.parametrize("name", REAL_SHARES)
def test_real_recordings_from_mid_life_are_told(name: str) -> None:
    coverage = Analysis(open_trace(REAL / f"{name}.pickle.gz")).peak().coverage
    assert coverage.attributed_frac is not None
    assert coverage.attributed_frac >= REAL_SHARES[name]
    assert coverage.by_source["inferred"] > 0


@needs_shared
def test_real_weights_and_gradients_are_equal_to_the_byte() -> None:
    """Its 111 parameters of 726.5 MiB, their gradients, and twice as much of moments that each step replaces."""
    device = Analysis(open_trace(REAL / "lm-train-midlife-torch2.10.pickle.gz")).device(0)
    table, attribution = device.allocations, device.attribution
    told = attribution.source == CategorySource.INFERRED
    sizes = {
        category: np.sort(table.requested_bytes[told & (attribution.category == category)])
        for category in (Category.WEIGHTS, Category.GRADIENTS, Category.OPTIMIZER_STATE)
    }
    assert len(sizes[Category.WEIGHTS]) == 111
    assert np.array_equal(sizes[Category.WEIGHTS], sizes[Category.GRADIENTS])
    assert np.array_equal(np.repeat(sizes[Category.WEIGHTS], 2), sizes[Category.OPTIMIZER_STATE])


class _Average:
    """Keeps an average of a model's weights, as trainers do."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        for mean, parameter in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(parameter, 0.1)


def _trained_with_copies(*, averages: bool, calls: bool, keeps_checkpoint: bool) -> DeviceLifetimes:
    """Steps of a small model beside an average, one that is called as well, or a checkpoint."""
    recorder = Recorder(backend="dry-run", gpu="A100-80GB", conf="")
    with recorder:
        model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(4))).to("cuda")
        average = _Average(model) if averages else None
        checkpoint = {name: p.detach().clone() for name, p in model.named_parameters()} if keeps_checkpoint else {}
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(3):
            batch = torch.randn(32, 256).to("cuda")
            if average is not None and calls:
                with torch.no_grad():
                    average.model(batch).sum()
            model(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if average is not None:
                average.update(model)
    del checkpoint
    return DeviceLifetimes(recorder.trace, 0)


def _live_bytes(lifetimes: DeviceLifetimes, category: Category) -> int:
    ledger = ledger_at(lifetimes, attribute(lifetimes), lifetimes.usage.peak_event)
    return ledger[category.label]


WEIGHT_BYTES = 4 * (256 * 256 + 256) * 4


def test_an_average_of_the_weights_is_not_weights() -> None:
    lifetimes = _trained_with_copies(averages=True, calls=False, keeps_checkpoint=False)
    assert _live_bytes(lifetimes, Category.WEIGHTS) == WEIGHT_BYTES
    assert _live_bytes(lifetimes, Category.OPTIMIZER_STATE) == 3 * WEIGHT_BYTES
    (average,) = attribute(lifetimes).inferences
    assert "the 8 gradients of a backward pass" in average.reason


def test_a_copy_that_is_called_is_weights() -> None:
    lifetimes = _trained_with_copies(averages=True, calls=True, keeps_checkpoint=False)
    assert _live_bytes(lifetimes, Category.WEIGHTS) == 2 * WEIGHT_BYTES


def test_a_checkpoint_that_stays_is_not_an_average() -> None:
    lifetimes = _trained_with_copies(averages=False, calls=False, keeps_checkpoint=True)
    assert not attribute(lifetimes).inferences
    assert _live_bytes(lifetimes, Category.OPTIMIZER_STATE) == 2 * WEIGHT_BYTES


@needs_shared
def test_a_real_state_of_one_event_is_not_told_by_lives() -> None:
    coverage = Analysis(open_trace(REAL / "opt-offload-torch2.0-layout.pickle.gz")).peak().coverage
    assert coverage.by_source.get("lifetime", 0) == 0
    (guessed,) = coverage.inferred
    assert guessed.category == "weights"
    assert guessed.confidence_words == "50 % sure"
