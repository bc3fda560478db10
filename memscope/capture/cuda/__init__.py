"""Recording on a real GPU: PyTorch's own memory history, and what it does not say.

``recording`` is the backend. It stands on ``history`` (the ring, drained to disk), ``sink`` (owners and marks, noted
with the allocator's count) with ``saved_tensors``, and ``allocator`` (what PyTorch says of its allocator).
"""
