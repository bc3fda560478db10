"""Why memory ran out: the state at the failed request, its cause, and the smallest change that lets it through.

Other folders take ``judge.judge_oom`` and what it returns: ``verdict``, with ``room.FreeGroup``.
"""
