"""Two recordings compared, and what a recording may need: differences, baselines, limits.

Other folders import:

``diff``        What two moments hold differently: allocations matched by what made them, never by address
``difference``  What a difference is made of: the two moments, rows that sum to it, what is new or gone.
                :mod:`.diff` makes it
``moments``     Which two moments are compared: peaks, events, steps
"""
