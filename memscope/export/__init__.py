"""A trace for other tools: timelines, tables, profiles, slices, SQL, and a copy that names nothing of yours.

Other folders import:

``formats``  Every format that a trace can be written in, by name
``reading``  A part of a trace read from its file, where that can be in the memory that the part needs
``redaction``  A trace that names nothing of yours: names become pseudonyms, numbers stay
``slices``   A part of a trace as a trace of its own
``sql``      Questions in SQL over a trace's views
``views``    The views of a trace: tables with a meaning for each column, for SQL, CSV and Parquet
"""
