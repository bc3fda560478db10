"""Allocators that are models: their parameters, and replays of recordings' requests with them.

Other folders import:

``model``     What a modelled allocator is, and what its parameters and its driver calls have in common with
              others'
``modelled``  Allocators that are models, serving a recording's requests
``registry``  The modelled allocators that there are, in the order in which they are listed
"""
