"""PyTorch's caching allocator: driven call by call, or by a recording's requests.

Other folders import:

``allocator``  PyTorch's caching allocator, simulated call by call
``engine``     A recording's requests, replayed under other settings or on another device
``settings``   The compiled allocator, made from settings and limits
``state``      The address space of a simulated allocator as tables
"""
