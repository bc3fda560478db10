import pytest

import memscope
from memscope.errors import TrustError, UsageError
from memscope.techniques.registry import TECHNIQUES
from memscope.techniques.whatif import what_if, what_if_all
from tests.techniques.programs import generate, peaks, train


def test_the_baseline_is_the_replay_of_what_was_recorded():
    found = what_if(train(), ["optimizer:sgd"])
    assert found.baseline == peaks(train())
    assert found.recorded == (found.baseline.allocated_bytes, found.baseline.reserved_bytes)
    assert found.warnings == ()
    assert found.together is None


def test_savings_are_the_difference_of_the_peaks():
    found = what_if(train(), ["optimizer:8bit", "checkpoint:every=1"])
    for result in (*found.results, found.together):
        assert result is not None
        assert result.saved_bytes == found.baseline.reserved_bytes - result.peaks.reserved_bytes
        assert result.saved_allocated_bytes == found.baseline.allocated_bytes - result.peaks.allocated_bytes


def test_several_are_applied_one_after_the_other():
    one, other = "micro-batch:2", "optimizer:sgd"
    device = train(32, 128)
    found = what_if(device, [one, other])
    assert found.together is not None
    assert found.together.technique == f"{one} + {other}"
    assert found.together.saved_allocated_bytes > max(result.saved_allocated_bytes for result in found.results)
    assert len(found.together.costs) == 2


def test_the_order_in_which_techniques_are_asked_for_does_not_matter():
    """A checkpointed program that is made in parts is checkpointed in each of them."""
    device = train(32, 128)
    names = ["checkpoint:every=1", "micro-batch:2"]
    one, other = what_if(device, names).together, what_if(device, names[::-1]).together
    assert one is not None
    assert other is not None
    assert one.peaks == other.peaks
    truth = peaks(train(32, 128, every=1, n_parts=2))
    assert abs(one.peaks.allocated_bytes / truth.allocated_bytes - 1) <= 0.02


@pytest.mark.parametrize("names", [("fsdp2:ranks=8", "optimizer:8bit"), ("offload:activations", "checkpoint:every=1")])
def test_two_techniques_are_one_change_in_either_order_and_not_called_proved(names):
    device = train(32, 128)
    one, other = (what_if(device, asked).together for asked in (names, names[::-1]))
    assert one is not None
    assert other is not None
    assert one.peaks == other.peaks
    assert one.proof == "unproved"


def test_what_changes_nothing_beside_others_says_so():
    device = train(32, 128)
    found = what_if(device, ["optimizer:sgd", "set-to-none"])
    assert found.together is not None
    assert any("set-to-none" in sentence for sentence in found.together.assumes)


@pytest.mark.parametrize("text", ["fsdp2:ranks=99999999999999999999", "zero:1:ranks=2000000", "micro-batch:9999999999"])
def test_numbers_that_nobody_has_are_refused(text):
    with pytest.raises(UsageError, match="is more than 1,048,576"):
        what_if(train(), [text])


def test_all_that_apply_are_ranked_and_the_others_say_why_not():
    found = what_if_all(train())
    savings = [result.saved_bytes for result in found.results]
    assert savings == sorted(savings, reverse=True)
    refused = dict(found.not_applicable)
    assert "every matrix is trained" in refused["quantize:nf4"]
    n_tried = sum(len(technique.defaults) for technique in TECHNIQUES.values())
    assert len(found.results) + len(refused) == n_tried
    assert {result.technique for result in what_if_all(generate()).results} >= {"kv:fp8", "static-kv", "quantize:int8"}


def test_a_technique_that_does_not_apply_is_refused_where_it_was_asked_for():
    with pytest.raises(UsageError, match="kv:fp8 does not apply"):
        what_if(train(), ["kv:fp8"])


def test_a_run_that_ended_out_of_memory_says_so():
    device = memscope.load("traces/tiny-out-of-memory.memscope").devices[0]
    found = what_if(device, ["conf:expandable_segments:True"])
    assert "memory ran out in this recording" in found.warnings[0]


def test_another_allocators_log_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "Thread,Time,Action,Pointer,Size,Stream\n1,10:00:00.000001,allocate,0x7f0000000000,256,0\n", encoding="utf-8"
    )
    with pytest.raises(TrustError, match="a log of another allocator"):
        what_if(memscope.load(path).devices[0], ["conf:expandable_segments:True"])
