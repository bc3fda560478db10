from dataclasses import replace

import torch

import memscope
from memscope.gpus import find_gpu
from memscope.planning.estimate import card_fit
from memscope.techniques.fit import ORDER, fit_plan
from memscope.techniques.whatif import what_if
from memscope.words.techniques import fit_words
from tests.techniques.programs import dry_run, generate, peaks, train


def card(n_bytes):
    return replace(find_gpu("24GiB"), total_bytes=n_bytes, context_bytes=0)


def test_what_fits_needs_no_plan():
    truth = peaks(train(32, 128))
    plan = fit_plan(train(32, 128), card(truth.reserved_bytes))
    assert (plan.fits, plan.steps, plan.spare_bytes) == (True, (), 0)


def test_a_plan_is_what_its_techniques_make_together_and_none_of_it_is_idle():
    device = train(32, 128)
    room = int(0.6 * peaks(device).reserved_bytes)
    plan = fit_plan(device, card(room))
    assert plan.fits
    assert plan.techniques
    assert plan.peaks.reserved_bytes <= room
    found = what_if(device, plan.techniques)
    together = found.together or found.results[0]
    assert together.peaks == plan.peaks == plan.steps[-1].peaks
    assert sum(step.saved_bytes for step in plan.steps) == together.saved_bytes
    for left_out in plan.techniques:
        rest = [name for name in plan.techniques if name != left_out]
        if rest:
            fewer = what_if(device, rest)
            assert (fewer.together or fewer.results[0]).peaks.reserved_bytes > room


def test_what_is_served_after_cached_memory_was_given_back_fits_as_in_an_estimate():
    def work():
        torch.empty(100 << 20, dtype=torch.uint8, device="cuda")  # let go of, and cached
        return torch.empty(150 << 20, dtype=torch.uint8, device="cuda")

    device, room = dry_run(work), 200 << 20
    plan, estimated = fit_plan(device, card(room)), card_fit(device, card(room))
    assert (plan.fits, plan.steps) == (True, ())
    assert plan.spare_bytes < 0
    assert plan.n_retries == estimated.n_retries == 1
    assert estimated.fits
    assert "cached memory given back" in fit_words(plan)


def test_what_nothing_makes_fit_says_so():
    plan = fit_plan(generate(), card(1 << 20))
    assert not plan.fits
    assert plan.spare_bytes < 0
    abouts = [dict(ORDER)[name] for name in plan.techniques]
    assert len(abouts) == len(set(abouts))


def test_no_step_of_a_plan_saves_nothing_though_nothing_makes_it_fit():
    """Of the four techniques that help one after the other, two take nothing off what the others leave."""
    plan = fit_plan(train(), card(1 << 20))
    assert (plan.fits, len(plan.steps)) == (False, 2)
    assert all(step.saved_bytes > 0 for step in plan.steps)
    assert sum(step.saved_bytes for step in plan.steps) == plan.baseline.reserved_bytes - plan.peaks.reserved_bytes


def test_a_recording_that_ran_out_of_memory_says_so():
    device = memscope.load("traces/tiny-out-of-memory.memscope").devices[0]
    (warning,) = fit_plan(device, card(1 << 40)).warnings
    assert "memory ran out in this recording" in warning
    assert fit_plan(train(), card(1 << 40)).warnings == ()
