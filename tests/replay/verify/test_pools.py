"""Private pools that a recording does not name, found so that no decision contradicts the rules."""

import pytest

from memscope.lifetimes.device import DeviceLifetimes
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.verify._pinned import follow
from memscope.replay.verify._pools import POOLS, RESERVATION_POOLS, PoolEvidence, infer_pools
from memscope.replay.verify.verify import verify
from memscope.trace.schema import Action, TieRule
from memscope.units import MiB
from tests.replay.recordings import Recorder
from tests.replay.verify.exactness import state_before


@pytest.mark.parametrize(("conf", "what"), [("", POOLS), ("expandable_segments:True", RESERVATION_POOLS)])
def test_private_pools_are_inferred_where_events_do_not_name_them(conf, what):
    recorder = Recorder(conf, tie_rule=TieRule.ADDRESS, has_pool_ids=False)
    recorder.allocator.malloc(1, pool=(0, 1))
    recorder.allocator.malloc(1, pool=(0, 2))
    recorder.allocator.release_pool((0, 1))
    recorder.workload(8, 1500, pools=((0, 0), (0, 0), (0, 1), (0, 2)), p_empty=0.01)
    result = verify(recorder.trace())
    assert result.first_divergence is None
    assert result.exact
    assert result.devices[0].inferred[what] > 0


def two_pools():
    """A free block of the default pool is passed over by a request of a private one."""
    recorder = Recorder(has_pool_ids=False)
    recorder.allocator.free(recorder.allocator.malloc(30 * MiB))
    recorder.allocator.malloc(1000)
    recorder.allocator.malloc(30 * MiB, pool=(0, 1))
    return recorder.trace()


def test_request_that_passed_over_a_free_block_was_of_another_pool():
    evidence = PoolEvidence()
    assert follow(state_before(two_pools()), evidence) is None
    assert evidence.conflicts == {(0, 2)}
    assert evidence.reclaims == []


def test_pools_are_given_out_so_that_the_conflict_is_gone():
    trace = two_pools()
    pools = next(infer_pools(DeviceLifetimes(trace, 0), CachingAllocatorConfig(), TieRule.SEGMENT_AGE))
    private = int(trace.segments.pool_id.max())
    assert pools.of_event[trace.action == Action.ALLOC].tolist() == [0, 0, private]
    assert pools.inferred[POOLS] == 0
    assert verify(trace).exact


def test_segments_that_stayed_when_others_went_back_were_of_another_pool():
    recorder = Recorder(has_pool_ids=False)
    for pool in ((0, 0), (0, 1)):
        recorder.allocator.free(recorder.allocator.malloc(30 * MiB, pool=pool))
    recorder.allocator.empty_cache()
    evidence = PoolEvidence()
    follow(state_before(recorder.trace()), evidence)
    assert evidence.conflicts == {(0, 1)}
    assert [[given.serial for given in run] for run in evidence.reclaims] == [[0]]
