"""The allocator simulators, verification against a recording, and replay under other strategies.

Other folders import:

``compare``     The recording beside what other strategies would have done with its requests
``config``      Every option of PyTorch's caching allocator that decides about device memory
``recording``   One device's events as the kernels take them: dense pairs of pool and stream, and the
                allocation behind each
``failures``    What the allocator's reclaim did before a request failed, as far as the events and the state
                after it tell
``requests``    What the program asked for, taken from a recording: without anything that the allocator
                decided
``result``      What an allocator made of a recording's requests, and the calls of the CUDA driver that it
                took
``strategies``  The registry of replay strategies: each serves a recording's requests in its own way
``sweep``       Many replays at once: one after the other, in local processes, or on a dask or ray
                cluster, through joblib
``within``      Whether requests can be served within so much memory: the one rule of every surface for what fits
"""
