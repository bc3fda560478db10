"""Is the simulator right about this very recording? Followed event by event under its own settings.

Other folders take ``verify`` and what it returns, ``divergence.Divergence`` among it. Below it stand, each on those
before: ``state`` (a recording and the allocator that follows it), ``growth`` (ends that the recording does not name),
``choice`` (which free block), ``reclaim`` (what goes back to the driver), ``pinned`` (the loop over the events) and
``pools`` (which pool, where that was not recorded).
"""
