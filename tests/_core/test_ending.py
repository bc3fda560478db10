"""The end of a process in which objects of the core are still held."""

from __future__ import annotations

import subprocess
import sys

HOLDS = """
import ctypes
from memscope.replay.caching.allocator import CachingAllocator
from memscope.replay.config import CachingAllocatorConfig
allocator = CachingAllocator(CachingAllocatorConfig())
allocator.malloc(1 << 20)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(allocator))  # as compiled code does that never lets go
"""


def test_nothing_is_said_of_what_compiled_code_holds_when_a_program_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", HOLDS], capture_output=True, text=True, check=True)
    assert ended.stdout + ended.stderr == ""
