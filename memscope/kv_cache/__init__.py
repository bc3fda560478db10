"""What a recorded key/value cache holds and wastes: its tokens, unused tails, and the copies that it grows by.

Other folders take ``lens.KvLens`` and its rows, what its bytes are divided into (``series.SPLITS``), and the replays
without the copies (``alternatives``). Below the lens stand, each on those before: ``parts``, ``growth``, ``series``.
"""
