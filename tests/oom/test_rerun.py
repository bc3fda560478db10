"""A failed request served again, with one thing changed."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.analysis import Analysis
from memscope.oom._causes import Situation
from memscope.oom._request import failed_request, limit_at, outside_at
from memscope.oom._rerun import Change, Rerun, Restart
from memscope.oom.room import room_at
from memscope.replay.config import CachingAllocatorConfig
from memscope.units import MiB
from tests.oom.planted import Program, holes_between_pins


@pytest.mark.parametrize("late", [False, True])
def test_the_recorded_state_alone_answers_as_the_whole_replay_does(late: bool) -> None:
    program = holes_between_pins(Program(256 * MiB), late)
    device = Analysis(program.trace()).device(0)
    lifetimes = device.lifetimes
    config = CachingAllocatorConfig.from_trace(lifetimes.trace, 0)
    request = failed_request(lifetimes, int(lifetimes.oom_events[0]), config)
    limit, room = limit_at(lifetimes, request, config), room_at(lifetimes, request, config)
    outside = outside_at(lifetimes, request.event, room.state.reserved_bytes, limit)
    situation = Situation(device, config, request, limit, room, outside)
    restart, whole = Restart(situation), Rerun(situation)
    table = lifetimes.allocations
    for row in np.flatnonzero(table.active_at(request.event)):
        freed = Change(freed_rows=np.array([row]))
        assert restart.serve(freed).is_served == whole.serve(freed).is_served
    assert not restart.serve(Change()).is_served
    assert restart.serve(Change()).reserved_bytes == room.state.reserved_bytes
    assert not restart.serve(Change(more_bytes=58 * MiB)).is_served
    assert restart.serve(Change(more_bytes=60 * MiB)).is_served
