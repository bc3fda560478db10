"""The recording that needs no GPU: a real PyTorch program on tensors without memory, on a simulated device.

``recording`` is the backend. Calls of torch pass ``redirect``, ``kernel_choices`` and ``cuda_api``; operations pass
``operations`` with ``known_values``; what they make is in ``storages`` on the ``device``; ``sink`` says whose it is, in
the ``context`` of a phase and a module.
"""
