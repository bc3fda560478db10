"""A recording under way: its folder, what is noted beside the events, and how a trace is made of it.

Other folders import:

``assembling``  A trace out of a recording's chunks: what its drains left in its folder, joined, with the
                notes where they belong
``folder``      A recording that is being made, or that was cut off: a folder of chunks beside the file it
                will become
``notes``       What a recording notes beside the allocator's events, and how that is written into its folder
``sampling``    The device's own count, sampled during a recording: its file in a recording's folder, its
                place in a trace
"""
