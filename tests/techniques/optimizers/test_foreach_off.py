import torch

from tests.techniques.programs import apply, assert_as_changed, train


def loop(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3, foreach=False)


def test_temporaries_are_those_of_the_loop():
    small = train(1, 8)
    assert apply(small, "optimizer:foreach-off").saved_bytes > 0
    assert_as_changed(small, "optimizer:foreach-off", train(1, 8, make_optimizer=loop))


def test_a_loop_saves_nothing():
    found = apply(train(1, 8, make_optimizer=loop), "optimizer:foreach-off")
    assert (found.saved_bytes, found.note) == (0, "the optimizer goes from one parameter to the next already")
