"""Techniques that spread over several devices what one holds, one a file: each rank keeps the batch that was recorded.

Other folders import:

``fsdp``  Weights, gradients and states in shards, and layers gathered where they are used
``zero``  The stages of ZeRO
"""
