"""Private pools that hand out whole blocks: known by what they held, and by the requests that passed over a rest."""

from __future__ import annotations

import pytest

from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.never_split import pools_that_never_split
from memscope.lifetimes.rules import rules_of
from memscope.trace.schema import TieRule
from memscope.trace.trace import Trace
from memscope.units import MiB
from tests.replay.naive_recordings import NaiveRecorder
from tests.replay.verify.exactness import assert_exact


def found_in(trace: Trace) -> list[int]:
    return [int(trace.pools[pool][1]) for pool in pools_that_never_split(trace, rules_of(trace.metadata))]


@pytest.mark.parametrize("settings", [{}, {"expandable": True}])
@pytest.mark.parametrize("seed", range(4))
def test_pool_that_never_splits_is_known_by_its_requests(settings: dict[str, bool], seed: int) -> None:
    conf = "expandable_segments:True" if settings else ""
    recorder = NaiveRecorder(conf, total=4000 * MiB, whole_pools=(2,), **settings)
    recorder.workload(seed, 300, pools=(0, 1, 2), p_empty=0)
    for block in [b for b in recorder.naive.all_blocks() if b.state == "allocated"]:
        recorder.naive.free(block.address)
    recorder.naive.empty_cache()
    trace = recorder.trace()
    assert len(trace.segments) == 0
    assert found_in(trace) == [2]
    assert_exact(trace)


def test_rest_taken_at_a_handle_s_edge_proves_that_a_pool_splits() -> None:
    recorder = NaiveRecorder(total=4000 * MiB)
    recorder.malloc(10 * MiB - 512, pool=1)
    recorder.naive.free(recorder.malloc(10 * MiB - 512, pool=1))
    recorder.malloc(4 * MiB, pool=3)
    recorder.malloc(8 * MiB, pool=3)
    recorder.malloc(9 * MiB, pool=3)
    trace = recorder.trace()
    assert found_in(trace) == []
    assert_exact(trace)


def gone(recorder: NaiveRecorder) -> Trace:
    """The recording once everything was freed and given back, so that no final block tells anything."""
    for block in [block for block in recorder.naive.all_blocks() if block.state == "allocated"]:
        recorder.naive.free(block.address)
    recorder.naive.empty_cache()
    return recorder.trace()


@pytest.mark.parametrize(
    ("second", "is_proved"),
    [
        # 16 MiB of the 20 MiB segment would be left of the first request.
        (5 * MiB, True),
        # More than that needs new memory whether the pool splits or not.
        (17 * MiB, False),
    ],
)
def test_new_memory_proves_it_where_a_rest_would_have_done(second: int, is_proved: bool) -> None:
    recorder = NaiveRecorder(whole_pools=(1,))
    recorder.malloc(4 * MiB, pool=1)
    recorder.malloc(second, pool=1)
    assert found_in(gone(recorder)) == ([1] if is_proved else [])


def test_larger_free_block_proves_it_where_a_rest_would_have_done() -> None:
    recorder = NaiveRecorder(whole_pools=(1,))
    first, larger = recorder.malloc(4 * MiB, pool=1), recorder.malloc(30 * MiB, pool=1)
    recorder.naive.free(larger)
    assert recorder.malloc(9 * MiB, pool=1) == larger
    assert first is not None
    assert found_in(gone(recorder)) == [1]


def test_failure_proves_it_where_a_rest_would_have_done() -> None:
    recorder = NaiveRecorder(total=20 * MiB, whole_pools=(1,))
    recorder.malloc(4 * MiB, pool=1)
    assert recorder.malloc(5 * MiB, pool=1) is None
    assert found_in(gone(recorder)) == [1]


def test_what_is_left_of_a_freed_block_proves_nothing() -> None:
    recorder = NaiveRecorder(whole_pools=(1,))
    recorder.naive.free(recorder.malloc(4 * MiB, pool=1))
    recorder.malloc(5 * MiB, pool=1)
    assert found_in(gone(recorder)) == []


def test_default_pool_is_never_asked() -> None:
    recorder = NaiveRecorder()
    recorder.malloc(4 * MiB)
    assert found_in(recorder.trace()) == []


@pytest.mark.parametrize("is_whole", [True, False])
def test_requests_prove_it_in_final_segments_where_events_name_no_pool(is_whole: bool) -> None:
    recorder = NaiveRecorder(has_pool_ids=False, tie_rule=TieRule.ADDRESS, whole_pools=(1,) if is_whole else ())
    place = recorder.naive.next_address
    for address in [recorder.malloc(4 * MiB), recorder.malloc(5 * MiB)]:
        recorder.naive.free(address)
    recorder.naive.empty_cache()
    recorder.naive.next_address = place
    # The segment at the same place is another one: how it was cut before says nothing.
    blocks = [recorder.malloc(n_bytes, pool=1) for n_bytes in (4 * MiB, 5 * MiB)]
    assert blocks[0] == place
    for address in blocks:
        recorder.naive.free(address)
    trace = recorder.trace()
    assert found_in(trace) == ([1] if is_whole else [])
    assert DeviceLifetimes(trace, 0).allocations.block_bytes[2:].tolist() == (
        [20 * MiB, 20 * MiB] if is_whole else [4 * MiB, 5 * MiB]
    )
    assert_exact(trace)
