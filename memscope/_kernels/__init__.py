"""Compiled kernels: arrays and scalars in, arrays and status codes out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def _forget_stale_code() -> None:
    """Drop compiled kernels that are older than any source file here.

    numba notices an edit of the file that a kernel is in, but not of the files whose functions it is made of: after
    such an edit it would run the old code on the new arrays.
    """
    folder = Path(__file__).parent
    with suppress(OSError):
        newest_ns = max(file.stat().st_mtime_ns for file in folder.glob("*.py"))
        for index in (folder / "__pycache__").glob("*.nbi"):
            if index.stat().st_mtime_ns < newest_ns:
                index.unlink(missing_ok=True)


_forget_stale_code()
