"""From events to allocations: lifetimes, usage over time, the exact state at any event, peaks, completeness.

Other folders import:

``ages``          Which allocations last, in what order those from before the events were probably made, and what
                  replaced which
``completeness``  What a trace cannot say: events lost, frees without allocs, bytes that predate it, stacks
                  missing
``device``        One device's memory over its events: allocations, usage, and the exact state after any event
``multisets``     Multisets of sizes: how many tensors there are of each, and what weights and copies of them they
                  can be
``never_split``   Private pools made with ``no_split=True``: nothing records them, but what they hand out
                  proves it
``placing``       The block of every allocation: its size, and the segment that it lies in
``reclaims``      Memory given back to the driver in runs, and what they tell of how much the driver could have
                  given out
``rules``         The rules by which a recording's allocator sized and split blocks
``segments``      The segments of one device over its events, undone from the final ones where the recording
                  began mid-life
``state``         The allocator's address space at one moment: segments, and the blocks that tile them
``steps``         The steps of one device as columns, and the steps of several recordings set side by side by
                  name
``tables``        What lifetimes are made of: allocations, and usage over events
"""
