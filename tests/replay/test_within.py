import pytest

from memscope.device.limits import Limits
from memscope.replay.caching.engine import replay_caching
from memscope.replay.within import Within, served_within
from tests.techniques.programs import peaks, train


def test_peaks_alone_decide_where_they_can():
    lifetimes = train().lifetimes
    assert served_within(lifetimes, 100, 90, 100) == Within(True)
    assert served_within(lifetimes, 100, 101, 120) == Within(False)


@pytest.mark.parametrize("less_bytes", [2 << 20, 20 << 20, 60 << 20])
def test_between_them_a_replay_within_the_capacity_decides(less_bytes):
    device = train(32, 128)
    truth = peaks(device)
    room = truth.reserved_bytes - less_bytes
    served = replay_caching(device.lifetimes, limits=Limits(total_bytes=room, reserved_by_others_bytes=0))
    found = served_within(device.lifetimes, room, truth.allocated_bytes, truth.reserved_bytes)
    assert found.fits == (served.oom is None)
    assert not found.fits or found.n_retries == served.n_retries > 0
