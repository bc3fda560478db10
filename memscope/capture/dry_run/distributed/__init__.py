"""Programs of many processes in a dry run: each rank alone, with the others' part of every collective made up.

``distributed`` is what a dry run starts. ``_groups`` lets process groups be made without the others, and without NCCL;
``_collectives`` runs what is asked of them with tensors of the device, ``_objects`` with Python objects; ``_reducer``
is for DistributedDataParallel, ``_spawning`` for programs that start processes themselves, ``_nccl`` says what NCCL
would take.

Other folders import:

``distributed``  Programs of many processes in a dry run: what is changed in torch for them, and undone at the end
``ranks``        One rank of many, run alone: the environment that a launcher would have given it, and all of
                 them one by one
"""
