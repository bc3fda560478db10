import pytest

from memscope.errors import UsageError
from memscope.techniques.registry import TECHNIQUES, technique_named


def test_the_longest_name_is_meant_and_the_rest_is_its_argument():
    assert [technique_named("optimizer:8bit")[1], technique_named("conf:expandable_segments:True")[1]] == [
        "",
        "expandable_segments:True",
    ]
    assert technique_named("checkpoint:every=4")[0].name == "checkpoint"
    assert technique_named(" kv:fp8 ")[1] == "fp8"


@pytest.mark.parametrize("text", ["optimizer:8bits", "nothing", "", "optimizer"])
def test_what_there_is_not_is_refused_with_what_there_is(text):
    with pytest.raises(UsageError, match=f"there is no technique '{text}'"):
        technique_named(text)


def test_each_technique_says_how_it_is_asked_for():
    for name, technique in TECHNIQUES.items():
        assert technique.usage.startswith(name)
        assert technique.summary
        assert technique.defaults
