from memscope.techniques.cache._parts import cache_rows
from memscope.techniques.program import Program
from tests.techniques.programs import generate


def test_keys_and_values_of_every_layer_and_token_are_found():
    rows = cache_rows(Program.of(generate()), "t")
    assert len(rows) == 3 * 2 * 8  # layers, keys and values, calls
    assert {each.layer for each in rows} == {0, 1, 2}
    assert {each.itemsize for each in rows} == {2}
    assert rows[0].shape == (8, 6, 256, 64)
    assert rows[-1].shape == (8, 6, 263, 64)
