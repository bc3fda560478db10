"""What a device's driver says is used: read, sampled, and told apart by reading before and after.

The recording on a GPU takes ``sampler`` and ``probes``; both read with ``reader``.
"""
