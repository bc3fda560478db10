import pytest

from memscope.errors import UsageError
from memscope.techniques.registry import TECHNIQUES, clash_of, technique_named


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


@pytest.mark.parametrize(
    ("asked", "clash"),
    [
        (["optimizer:8bit", "optimizer:sgd"], ("optimizer:8bit", "optimizer:sgd")),
        (["optimizer:fused", "set-to-none", "optimizer:foreach-off"], ("optimizer:fused", "optimizer:foreach-off")),
        (["micro-batch:2", "checkpoint:every=1", "micro-batch:4"], ("micro-batch:2", "micro-batch:4")),
        (["set-to-none", "set-to-none"], ("set-to-none", "set-to-none")),
        (["offload:optimizer", "optimizer:8bit", "checkpoint:every=1"], None),
        ([], None),
    ],
)
def test_what_cannot_be_of_one_program_is_named(asked, clash):
    assert clash_of(asked) == clash
