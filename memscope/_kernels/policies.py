"""What a modelled allocator does, one name for each act: the type of the policy decides which kernel that is.

A policy is a NamedTuple of its parameters (int64 scalars, and int64 arrays where it keeps state of its own). Its
kernels are registered under its class, so that the loop over requests is written once and compiled for each policy.
All state that every allocator has (blocks, segments, free sets, counters) lies in
:class:`~memscope._kernels.caching_layout.CachingArrays`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from numba.extending import overload

from memscope._kernels.caching_layout import B_ADDRESS, NONE
from memscope._kernels.compiled import borrowing

Kernel = Callable[..., Any]


@borrowing
def whole_block(policy, arrays, block):
    """The ``next_part`` of policies whose allocations are one block each."""
    return NONE


@borrowing
def block_address(policy, arrays, block):
    """The ``address_of`` of policies whose allocations are one block each."""
    return arrays.blocks[block, B_ADDRESS]


class PolicyKernels(NamedTuple):
    """The acts of a policy, compiled.

    ``malloc(policy, arrays, pair, requested_bytes)`` returns the block given (in state ``ALLOCATED``, counted), or
    ``STATUS_OOM``, or ``STATUS_GROW`` before anything was changed if an array may be too short. It does not wait for
    other streams by itself: it calls ``policy_blocks.complete_all_frees`` where its model synchronises.

    ``give_back(policy, arrays, block)`` returns a block that is in state ``FREE`` and no longer counted as active to
    where its memory can be reused; it must not need new rows beyond what ``has_room`` of the layout keeps.

    ``release(policy, arrays)`` gives all unused memory back to the driver: ``torch.cuda.empty_cache()``.

    ``next_part(policy, arrays, block)``, for policies that make one allocation of several blocks: the block after this
    one in the same allocation, −1 after the last. The first one stands for all; ``give_back`` gets only that one.

    ``address_of(policy, arrays, block)``: where the program sees the allocation that a block is the first of.
    """

    malloc: Kernel
    give_back: Kernel
    release: Kernel
    next_part: Kernel = whole_block
    address_of: Kernel = block_address


_KERNELS: dict[type, PolicyKernels] = {}


def register(policy: type, kernels: PolicyKernels) -> None:
    """Say what a policy's acts are; called once, where the policy is defined."""
    _KERNELS[policy] = kernels


def malloc(policy, arrays, pair, requested_bytes):
    """Serve a request: see :class:`PolicyKernels`."""
    return _KERNELS[type(policy)].malloc(policy, arrays, pair, requested_bytes)


def give_back(policy, arrays, block):
    """Return a block: see :class:`PolicyKernels`."""
    return _KERNELS[type(policy)].give_back(policy, arrays, block)


def release(policy, arrays):
    """Give unused memory back: see :class:`PolicyKernels`."""
    return _KERNELS[type(policy)].release(policy, arrays)


def next_part(policy, arrays, block):
    """The next block of an allocation: see :class:`PolicyKernels`."""
    return _KERNELS[type(policy)].next_part(policy, arrays, block)


def address_of(policy, arrays, block):
    """The address of an allocation: see :class:`PolicyKernels`."""
    return _KERNELS[type(policy)].address_of(policy, arrays, block)


@overload(malloc)
def _malloc_of(policy, arrays, pair, requested_bytes):
    kernel = _KERNELS[policy.instance_class].malloc

    def call(policy, arrays, pair, requested_bytes):
        return kernel(policy, arrays, pair, requested_bytes)

    return call


@overload(give_back)
def _give_back_of(policy, arrays, block):
    kernel = _KERNELS[policy.instance_class].give_back

    def call(policy, arrays, block):
        return kernel(policy, arrays, block)

    return call


@overload(release)
def _release_of(policy, arrays):
    kernel = _KERNELS[policy.instance_class].release

    def call(policy, arrays):
        return kernel(policy, arrays)

    return call


@overload(next_part)
def _next_part_of(policy, arrays, block):
    kernel = _KERNELS[policy.instance_class].next_part

    def call(policy, arrays, block):
        return kernel(policy, arrays, block)

    return call


@overload(address_of)
def _address_of_of(policy, arrays, block):
    kernel = _KERNELS[policy.instance_class].address_of

    def call(policy, arrays, block):
        return kernel(policy, arrays, block)

    return call
