"""Techniques that change no request of the program, but how they are served, one a file.

Other folders import:

``conf``         Other settings of PyTorch's allocator
``empty_cache``  Unused segments given back after each step
"""
