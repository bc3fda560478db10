"""The recording that needs no GPU: a real PyTorch program on tensors without memory, on a simulated device.

``recording`` is the backend. Calls of torch pass ``_redirect`` and ``_kernel_choices``; operations
pass ``_operations`` with ``values``; what they make is in ``_storages`` on the ``_device``; ``_sink`` says
whose it is. ``distributed`` is for programs of many processes.

Other folders import:

``recording``  The recording that needs no GPU: a real PyTorch program run on tensors without memory, on a
               simulated device
"""
