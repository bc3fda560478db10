"""What parameters of models may be."""

import pytest

from memscope.errors import UsageError
from memscope.replay.models.model import check_powers, check_sizes, check_switches
from memscope.replay.models.registry import MODELS


def test_parameters_that_make_no_sense_are_named():
    check_sizes(a_bytes=3)
    check_powers(a_bytes=4)
    check_switches(a=1, b=0)
    with pytest.raises(UsageError, match="a_bytes is 0: it must be positive"):
        check_sizes(a_bytes=0)
    for n_bytes in (0, -4, 3):
        with pytest.raises(UsageError, match="power of two"):
            check_powers(a_bytes=n_bytes)
    with pytest.raises(UsageError, match="must be 0 or 1"):
        check_switches(a=2)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_says_what_it_is_and_what_it_assumes(model):
    assert model.summary
    assert model.source
    assert all(note.startswith(f"{model.name}: ") for note in model.notes)
    assert model.new_allocator() is not None
