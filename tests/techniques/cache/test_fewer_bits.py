import pytest
import torch
from transformers.cache_utils import DynamicLayer

from memscope.errors import UsageError
from tests.techniques.programs import apply, assert_as_changed, generate, train


class Float8(DynamicLayer):
    """A byte a number, brought back whole for the attention."""

    def update(self, key_states, value_states, *args, **kwargs):
        self.is_initialized = True
        whole = []
        for name, states in (("keys", key_states), ("values", value_states)):
            new = torch.zeros(states.shape, dtype=torch.uint8, device=states.device)
            old = getattr(self, name, None)
            setattr(self, name, new if old is None else torch.cat([old, new], dim=-2))
            whole.append(states.new_empty(getattr(self, name).shape))
        return tuple(whole)

    def get_seq_length(self):
        return 0 if getattr(self, "keys", None) is None else self.keys.shape[-2]


def test_keys_and_values_are_bytes_as_in_such_a_cache():
    assert apply(generate(), "kv:fp8").saved_allocated_bytes > 0
    assert_as_changed(generate(), "kv:fp8", generate(make_layer=Float8))


def test_scales_take_what_they_take():
    fp8, int8 = (apply(generate(), f"kv:{kind}").peaks.allocated_bytes for kind in ("fp8", "int8"))
    assert fp8 < int8


def test_a_program_without_cache_and_an_unknown_format_are_refused():
    with pytest.raises(UsageError, match="no key/value cache was seen"):
        apply(train(), "kv:fp8")
    with pytest.raises(UsageError, match="choose one of kv:fp8, kv:int8, kv:int4"):
        apply(generate(), "kv:int2")
