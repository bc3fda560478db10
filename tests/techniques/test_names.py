import pytest

from memscope.techniques.names import layer_of


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("transformer.h.11.mlp.act", ("transformer.h", 11)),
        ("3.weight", ("", 3)),
        ("layers.0.1", ("layers", 0)),
        ("lm_head", None),
        ("backward", None),
        ("cache 1 layer 0 keys", None),
    ],
)
def test_a_name_says_which_layer_it_lies_in(name, layer):
    assert layer_of(name) == layer
