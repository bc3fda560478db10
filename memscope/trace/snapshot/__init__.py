"""Torch's memory snapshots: read safely, whichever version wrote them, and written.

Other folders import:

``part``   Reading a part of a snapshot's events in the memory that the part needs, and what is in use around
           it
``read``   Reading torch's CUDA memory snapshots (``torch.cuda.memory._dump_snapshot``), safely: 2.0 to 2.15,
           any protocol
``write``  Writing a trace as a torch memory snapshot, for ``_memory_viz.py``, pytorch.org/memory_viz and
           other readers
"""
