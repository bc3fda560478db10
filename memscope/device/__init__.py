"""One device of a trace, and every measured fact of it.

Other folders take ``device.Device`` and ``device.Moment``, what holds for the whole trace
(``recording.RecordedTrace``), and the ``limits`` of its memory.
"""
