"""Programs of many processes in a dry run: each rank alone, with the others' part of every collective made up.

``groups`` lets process groups be made without the others, and without NCCL; ``_collectives`` runs what is asked of
them on tensors of the device, ``_objects`` what is asked of Python objects.

Other folders import:

``groups``  Process groups of a dry run: made in one process, whatever the number of ranks
"""
