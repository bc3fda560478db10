"""The data model: the columnar trace, its builder, its checks, its file and the readers of foreign formats.

Other folders import:

``builder``       Building a trace event by event, while something is being recorded
``cache_labels``  The names of a key/value cache's parts: made at capture, read to tell layers and caches
                  apart
``categories``    The categories of memory: fixed names, fixed order, stored numbers
``container``     The ``.memscope`` file: a stored zip of ``meta.json`` and one Parquet table (zstd) for each
                  part of the trace
``frames``        Looking for frames in stacks: each distinct file and function is searched once, however many
                  stacks there are
``marks``         Steps and phases of a trace as spans of events
``metadata``      Where a trace comes from and under which settings it was recorded
``open``          Opening a trace file of any kind, by its content
``schema``        The words and column types of a trace: actions, block states, marks, tie rules, and the
                  columns of each table
``tables``        Frozen tables of equal-length, read-only columns: the parts a
                  :class:`~memscope.trace.trace.Trace` is made of
``trace``         The trace: everything that was recorded about one process's GPU memory, in columns
``validate``      Contradictions inside a recording: what no real allocator state can be, found without
                  replaying anything
``zip_members``   Which member of a zip archive is the snapshot: one of several that were packed together, or what
                  torch.save wrote
"""
