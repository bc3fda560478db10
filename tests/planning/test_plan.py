import pytest

from memscope.errors import UsageError
from tests.planning.models import GPT2, plan


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_samples": 0}, "batch 0: choose from 1 to 1,048,576"),
        ({"n_tokens": -1}, "seq -1: choose"),
        ({"n_new_tokens": 1 << 21}, "new tokens 2,097,152: choose"),
        ({"mode": "generate", "checkpoints": True}, "checkpoints are for training"),
        ({"values": GPT2, "n_tokens": 257}, "the model has positions for 256 tokens, and 257 were asked"),
    ],
)
def test_what_cannot_be_is_refused(options, reason):
    with pytest.raises(UsageError, match=reason):
        plan(**options)


def test_rotary_positions_have_no_end():
    assert not plan(n_tokens=1 << 15).has_learnt_positions
