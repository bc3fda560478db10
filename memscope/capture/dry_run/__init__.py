"""The recording that needs no GPU: a real PyTorch program on tensors without memory, on a simulated device."""
