"""What is in a cache: its parts, how its layers keep tokens, how many they have taken in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from memscope.capture.kv_caches import (
    LayerShape,
    describe_layer,
    layer_parts,
    leaves,
    n_query_tokens,
    tokens_taken_in,
)

torch = pytest.importorskip("torch")
cache_utils = pytest.importorskip("transformers.cache_utils")


def test_a_layer_that_hqq_quantised_has_packed_values_scales_and_zeros() -> None:
    packed, scale, zero, residual = (torch.zeros(n) for n in (1, 2, 3, 4))
    meta = {"scale": scale, "zero": zero, "shape": torch.Size([6, 2, 4, 8]), "nbits": 4}
    device = torch.device("cuda", 1)
    layer = SimpleNamespace(
        _quantized_keys=(packed, meta), _quantized_values=None, keys=residual, values=None, device=device
    )
    assert [(part, len(tensor)) for part, tensor in layer_parts(layer)] == [
        ("keys", 1),
        ("keys scale", 2),
        ("keys zero", 3),
        ("keys residual", 4),
    ]
    assert describe_layer(layer) == LayerShape("SimpleNamespace", 6, -1, -1, -1, -1, 1)


def test_a_cache_of_two_attentions_is_two_caches() -> None:
    keys = torch.zeros(2, 4, 5, 8)
    both = SimpleNamespace(self_attention_cache="own", cross_attention_cache="other")
    assert [(leaf.cache, leaf.is_cross) for leaf in leaves(both)] == [("own", False), ("other", True)]
    four = [(keys, keys, keys, keys)]
    assert [leaf.is_cross for leaf in leaves(four)] == [False, True]
    assert [list(leaves(nothing)) for nothing in (None, 3, "text")] == [[], [], []]


def test_tokens_are_counted_by_the_host_or_not_at_all() -> None:
    keys = torch.zeros(2, 4, 5, 8)
    assert tokens_taken_in((keys, keys), is_cross=False) == 5
    assert tokens_taken_in(SimpleNamespace(keys=keys, cumulative_length=9), is_cross=False) == 9
    assert tokens_taken_in(SimpleNamespace(keys=keys, max_cache_len=5), is_cross=False) is None
    assert tokens_taken_in(SimpleNamespace(keys=keys, max_cache_len=5), is_cross=True) == 5
    assert tokens_taken_in(SimpleNamespace(keys=None, is_initialized=False), is_cross=False) == 0


def test_a_pass_has_the_tokens_of_the_decoders_input_first() -> None:
    ids = torch.zeros(2, 7)
    assert n_query_tokens((), {"input_ids": torch.zeros(2, 3), "decoder_input_ids": ids}) == 7
    assert n_query_tokens((ids,), {}) == 7
    assert n_query_tokens((), {"pixel_values": ids}) == -1
