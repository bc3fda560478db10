"""What CUDA's kernels are and take where the shapes of tensors alone do not say it.

``scratch`` looks a kernel's temporaries up: ``_call`` is the call that they are told from, the other modules have
the kernels of a subject.

Other folders import:

``attention``   Attention by plain matrix products, as CUDA has it
``recurrent``   Recurrent networks as CUDA has them without cuDNN, and the results of its fused cells
``scratch``     What kernels allocate beside the tensors that they return, by operation
``workspaces``  What cuBLAS and cuBLASLt are given to work in
"""
