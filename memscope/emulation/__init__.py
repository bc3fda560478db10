"""An emulated CUDA device: PyTorch's CUDA build, its own allocator included, on a machine that has no GPU.

Small stand-ins take the place of NVIDIA's libraries. They have memory, streams and events, and no processor: device
memory is address space, kernels do nothing, and a copy to the host brings zeros. Whatever PyTorch decides about
memory it decides itself, so that a recording made here holds its allocator's true behaviour for the requests that the
program made.

The stand-ins are compiled for the PyTorch that is installed (:mod:`~memscope.emulation.build`), and are in place
before Python starts (:mod:`~memscope.emulation.launch`). Nothing here imports torch, but for the functions that adapt
it.

Other folders import:

``build``        Compiling the stand-ins, once for each PyTorch, with the system's C compiler
``launch``       Putting the stand-ins in place: the environment that a program must start in, and whether
                 this one did
``programs``     What PyTorch and transformers must be told when they run on a device that computes
                 nothing
``torch_build``  The installed PyTorch, looked at without importing it: its folder, its version, the CUDA
                 that it was built for
"""
