"""What to change: settings searched by replay, with their predicted gain.

Other folders import:

``confs``  The settings that a search tries: a grid of PyTorch's own options, and the neighbours of a good one
``tune``   The best settings of PyTorch's allocator for a recording, found by replaying it under many
"""
