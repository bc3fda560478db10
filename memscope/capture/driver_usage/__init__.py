"""What a device's driver says is used: read, sampled, and told apart by reading before and after.

Other folders import:

``probes``   Telling apart what a process holds on a device beyond PyTorch's allocator, by counting before and
             after
``sampler``  Sampling what drivers say is used while something is recorded, on a thread of its own
"""
