"""What techniques would have made of a recorded program, as text and as JSON.

Other folders import:

``json``  The object of ``memscope whatif --json``
``text``  The same as text for a terminal
"""
