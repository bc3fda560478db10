"""Techniques that let a failed request through, and the program truly changed so on the same card."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from memscope.analysis import Analysis
from memscope.capture.dry_run.recording import DryRun
from memscope.device.device import Device
from memscope.gpus import find_gpu
from memscope.techniques.through import MOST, techniques_through
from tests.techniques.programs import N_CLASSES, Model, peaks, train

MiB = 1 << 20


def run(n_bytes: int, n_samples: int = 32, n_tokens: int = 128, *, every: int = 0, n_parts: int = 1) -> Device:
    """Three steps on a card of some bytes, or as many as it has memory for."""
    card = replace(find_gpu("24GiB"), total_bytes=n_bytes, context_bytes=0)
    recording = DryRun(card, has_stacks=False, on_oom=False)
    recording.start()
    try:
        with torch.device("cuda"):
            model = Model(every)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(3):
            words = torch.randint(0, N_CLASSES, (n_samples, n_tokens)).to("cuda")
            for part in words.chunk(n_parts):
                (functional.cross_entropy(model(part).flatten(0, 1), part.flatten()) / n_parts).backward()
            optimizer.step()
            optimizer.zero_grad()
    except torch.OutOfMemoryError:
        pass
    finally:
        recording.stop()
    assert recording.trace is not None
    return Analysis(recording.trace).devices[0]


def ran_out(device: Device) -> bool:
    return device.lifetimes.fatal_oom_event is not None


@pytest.mark.parametrize("share", [0.55, 0.8])
def test_checkpoints_and_parts_of_a_batch_let_a_pass_through_as_in_a_changed_program(share):
    room = int(share * peaks(train(32, 128)).reserved_bytes)
    device = run(room)
    assert ran_out(device)
    found = {each.technique: each for each in techniques_through(device)}
    assert 0 < len(found) <= MOST
    assert "micro-batch:2" in found
    assert found["micro-batch:2"].saved_bytes > 0
    changed = run(room, n_parts=2)
    assert changed.n_events > device.n_events
    if "checkpoint:every=1" in found:
        assert run(room, every=1).n_events > device.n_events


def test_what_is_in_use_is_less_by_what_is_saved():
    room = int(0.8 * peaks(train(32, 128)).reserved_bytes)
    device = run(room)
    needed = {each.in_use_bytes + each.saved_bytes for each in techniques_through(device)}
    assert len(needed) == 1
    assert all(each.how for each in techniques_through(device))


def test_a_step_of_the_optimizer_that_fails_is_made_elsewhere():
    whole = peaks(train(1, 8)).allocated_bytes
    device = run(int(0.8 * whole), 1, 8)
    assert ran_out(device)
    assert "offload:optimizer" in {each.technique for each in techniques_through(device)}


def test_a_run_that_did_not_fail_needs_none():
    assert techniques_through(train()) == ()


def test_a_request_that_no_technique_makes_smaller_has_none():
    card = replace(find_gpu("24GiB"), total_bytes=64 * MiB, context_bytes=0)
    recording = DryRun(card, has_stacks=False, on_oom=False)
    recording.start()
    try:
        torch.empty(65 * MiB, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        pass
    finally:
        recording.stop()
    assert recording.trace is not None
    assert techniques_through(Analysis(recording.trace).devices[0]) == ()
