import torch

from tests.techniques.programs import apply, assert_as_changed, train


def adafactor(parameters):
    return torch.optim.Adafactor(parameters, lr=1e-3)


def test_states_and_temporaries_are_those_of_adafactor():
    assert_as_changed(train(), "optimizer:adafactor", train(make_optimizer=adafactor), within=0.02)


def test_adafactor_itself_saves_nothing():
    found = apply(train(make_optimizer=adafactor), "optimizer:adafactor")
    assert (found.saved_bytes, found.note) == (0, "the optimizer is Adafactor already")
