"""What a program finds of a device in a dry run beside ``torch.cuda``: how its tensors look, and torch's own tools.

Other folders import:

``appearance``      What a program sees of a dry run's tensors: tensors of the device, neither fake nor
                    being traced
``flex_attention``  Flex attention in a dry run: fused where a program compiles it, else by plain matrix
                    products
``host_memory``     Pinned and shared memory of the host in a dry run: nothing is pinned, and what asks is told
                    that it is
``products``        Gradients of products, computed as where elements can be asked
``tools``           torch's own tools in a dry run: profilers, generators, functional transforms, TorchScript
"""
