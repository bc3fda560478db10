import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from memscope.errors import UsageError
from tests.techniques.programs import N_CLASSES, Model, adamw, apply, assert_as_changed, dry_run, train


def chunked():
    """The same program with the head and the loss for an eighth of the words at a time."""

    def loss_of(model, part, wanted):
        return functional.cross_entropy(model.head(part), wanted, reduction="sum")

    def work():
        with torch.device("cuda"):
            model = Model()
        optimizer = adamw(model.parameters())
        for _ in range(3):
            words = torch.randint(0, N_CLASSES, (32, 128)).to("cuda")
            hidden = model.embed(words)
            for layer in model.layers:
                hidden = layer(hidden)
            loss = hidden.new_zeros(())
            for part, wanted in zip(hidden.flatten(0, 1).chunk(8), words.flatten().chunk(8), strict=True):
                loss = loss + checkpoint(loss_of, model, part, wanted, use_reentrant=False)
            del hidden, part  # as a model's own forward pass lets go of them
            (loss / words.numel()).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, optimizer

    return dry_run(work)


def test_logits_are_made_in_parts_as_in_a_program_that_does_so():
    large = train(32, 128)
    assert apply(large, "logits:chunked").saved_bytes > 0
    assert_as_changed(large, "logits:chunked", chunked(), within=0.03)


def test_more_parts_leave_less():
    few, many = (apply(train(32, 128), f"logits:chunked:chunks={n}").peaks for n in (2, 16))
    assert many.allocated_bytes < few.allocated_bytes


def test_another_way_is_refused():
    with pytest.raises(UsageError, match="it is known as logits:chunked"):
        apply(train(), "logits:dropped")
