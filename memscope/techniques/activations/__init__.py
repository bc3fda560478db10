"""Techniques that change what a pass saves and makes on its way, one a file.

Other folders import:

``checkpoint``      Layers computed again in the backward pass
``chunked_logits``  Head and loss for a part of the tokens at a time
``layers``          The layers of a model as its forward pass shows them
``micro_batch``     The batch in parts
``saved_on_host``   What is saved for the backward pass on the host
"""
