"""Two recordings compared, and what a recording may need: differences, baselines, limits.

Other folders import:

``baseline``    What a run used to need: the peaks of some runs, how far they lay apart, and who held the memory
``checks``      Which limits are asked for: of one trace, or of several in a TOML file
``diff``        What two moments hold differently: allocations matched by what made them, never by address
``difference``  What a difference is made of: the two moments, rows that sum to it, what is new or gone.
                :mod:`.diff` makes it
``for_inputs``  What a step needs for the batch that it has: a longer batch needs more
``gate``        Whether a recording keeps within its limits, and who holds the excess
``moments``     Which two moments are compared: peaks, events, steps
``trees``       Two trees as one: the calls, or the modules, behind two moments, with the bytes of both
"""
