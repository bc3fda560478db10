"""Why memory ran out: the state at the failed request, its cause, and the smallest change that lets it through.

Other folders import:

``judge``    The verdict on a device's out-of-memory error, what it rests on in words and numbers, and what
             weakens it
``room``     What was free when a request failed, where it lay, and whether any arrangement of it would have
             been enough
``verdict``  What the verdict on an out-of-memory error is made of, and its one line
"""
