"""How kernels are compiled whose arrays belong to the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def borrowing(function: Callable[..., Any]) -> Any:
    """Compile a kernel that makes no array and keeps none: it works on its caller's.

    numba counts references to every array at every call, atomically. In a kernel of many small functions on a few
    arrays that is two thirds of the time, and for borrowed arrays it decides nothing, so it is left out. Making an
    array in such a kernel is an error when it is compiled. Other Python threads run on while it works.
    """
    return njit(cache=True, _nrt=False, no_cfunc_wrapper=True, nogil=True)(function)
