"""PyTorch's caching allocator: driven call by call, or by a recording's requests."""
