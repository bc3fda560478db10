"""Several recordings of one job side by side.

Other folders take ``compare.compare_ranks`` and what it returns, from ``comparison``.
"""
