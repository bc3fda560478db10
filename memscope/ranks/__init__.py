"""Several recordings of one job side by side.

Other folders import:

``compare``     Several recordings of one job side by side: who peaks, how far they lie apart, in which step,
                and what differs
``comparison``  What a comparison of recordings is made of: rows, spreads, steps, differences. :mod:`.compare`
                makes it
"""
