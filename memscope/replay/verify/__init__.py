"""Is the simulator right about this very recording? Followed event by event under its own settings.

Below it stand, each on those before: ``_state`` (a recording and the allocator that follows it), ``_growth`` (ends
that the recording does not name), ``_choice`` (which free block), ``_reclaim`` (what goes back to the driver),
``_pinned`` (the loop over the events) and ``_pools`` (which pool, where that was not recorded).

Other folders import:

``divergence``  Where a replay and a recording part
``verify``      Is the simulator right about this very recording? Replay it under its own settings and compare
                everything
"""
