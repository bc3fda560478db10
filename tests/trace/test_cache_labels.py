"""Names of a cache's parts: what is written is read back, and of others' names what they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.trace.cache_labels import CachePart, cache_label, read_cache_label


@given(
    st.one_of(st.none(), st.integers(0, 10**6)),
    st.integers(0, 10**4),
    st.sampled_from(["keys", "values", "keys scale", "values zero", "indexer keys", "length", "conv 2 state"]),
    st.booleans(),
)
def test_a_name_says_what_it_was_made_of(cache_id: int | None, layer: int, part: str, is_cross: bool) -> None:
    said = read_cache_label(cache_label(cache_id, layer, part, is_cross=is_cross))
    assert said == CachePart(cache_id, layer, part, is_cross, cache_id is not None)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("[12]", CachePart(None, 12, None)),
        ("model.layers.7.self_attn.attn", CachePart(None, 7, None)),
        ("transformer.h.3.attn", CachePart(None, 3, None)),
        ("request 9", CachePart(9, None, None)),
        ("request 9 layer 2 values", CachePart(9, 2, "values")),
        ("layers[4].k_cache", CachePart(None, 4, "keys")),
        ("kv_cache", CachePart(None, None, None)),
        ("", CachePart(None, None, None)),
        ("layer 0 k", CachePart(None, 0, "keys")),
        ("layer 2 k_cache", CachePart(None, 2, "keys")),
        ("layer 3 kv_cache", CachePart(None, 3, None)),
        ("cache 1 layer 0 value", CachePart(1, 0, "values")),
        (f"layer {'9' * 40} keys", CachePart(None, None, "keys")),
    ],
)
def test_others_names_say_what_can_be_told(label: str, expected: CachePart) -> None:
    assert read_cache_label(label) == expected
