"""Techniques that change what an optimizer keeps and takes, one a file.

Other folders import:

``adafactor``    Rows and columns in place of Adam's second moment
``eight_bit``    States in 8 bits
``foreach_off``  One parameter after the other
``fused``        The fused kernel
``offloaded``    States and steps on the host
``paged``        States in unified memory
``set_to_none``  Gradients let go of after each step
``sgd``          No state at all
"""
