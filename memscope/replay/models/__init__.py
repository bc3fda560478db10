"""Allocators that are models: their policies, driven call by call or by a recording's requests.

Other folders import:

``model``     What a modelled allocator is, and what its parameters and its driver calls have in common with
              others'
``modelled``  Allocators that are models: one policy each, driven call by call or by a recording's requests
``registry``  The modelled allocators that there are, in the order in which they are listed
"""
