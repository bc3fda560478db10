"""An emulated CUDA device: PyTorch's CUDA build, its own allocator included, on a machine that has no GPU.

Small stand-ins take the place of NVIDIA's libraries. They have memory, streams and events, and no processor: device
memory is address space, kernels do nothing, and a copy to the host brings zeros. Whatever PyTorch decides about memory
it decides itself, so that a recording made here holds its allocator's true behaviour for the requests that the program
made.

The stand-ins are compiled for the PyTorch that is installed (:mod:`~memscope.emulation.build`), and are in place before
Python starts (:mod:`~memscope.emulation.launch`). Nothing here imports torch, but for the functions that adapt it.
"""
