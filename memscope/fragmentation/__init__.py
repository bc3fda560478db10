"""What is held without being used, measured on one state.

Other folders import:

``holes``      Holes: the free blocks of one state, by the pool, stream and size class that may use them
``metrics``    Fragmentation of one state, for each (pool, stream, small or large) and in all
``over_time``  A fragmentation series in a few numbers: means, the worst moments, and a coarse outline
``pins``       Pins: live blocks that keep memory, free but for them, from going back to the driver; and who
               holds them
``series``     Fragmentation after every event: exact step functions, for each (pool, stream, small or large)
               and in all
"""
