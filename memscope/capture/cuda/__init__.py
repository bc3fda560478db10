"""Recording on a real GPU: PyTorch's own memory history, and what it does not say.

``recording`` is the backend. It stands on ``_history`` (the ring, drained to disk), ``_sink`` (owners and marks,
noted with the allocator's count) with ``_saved_tensors``, and ``allocator`` (what PyTorch says of its allocator).

Other folders import:

``allocator``  What PyTorch says of its CUDA allocator and its devices: whether there is a history, how many
               calls, statistics
``recording``  Recording on a real GPU: PyTorch's own memory history, with steps, phases, tags and owners
               added
"""
