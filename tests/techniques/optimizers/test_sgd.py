import torch

from tests.techniques.programs import apply, assert_as_changed, train


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3)


def test_states_and_temporaries_go_as_in_a_program_of_sgd():
    assert_as_changed(train(), "optimizer:sgd", train(make_optimizer=sgd))


def test_nothing_changes_where_the_optimizer_keeps_no_state():
    found = apply(train(make_optimizer=sgd), "optimizer:sgd")
    assert found.saved_bytes == 0
    assert found.note == "the optimizer keeps no state already"
