"""Recording on a real GPU: PyTorch's own memory history, and what it does not say."""
