"""Compiled kernels: arrays and scalars in, arrays and status codes out; nothing of memscope is imported here."""
