"""Python stacks of a recording under way: walked from the live frames, interned as they are seen."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType, FrameType

from memscope.trace.builder import StackInterner
from memscope.trace.schema import NONE_ID

_OWN_FOLDER = str(Path(__file__).parent)
_TRACER_FILES = (
    "torch/_subclasses/",
    "torch/_ops.py",
    "torch/_compile.py",
    "torch/_dynamo/",
    "torch/_library/",
    "torch/_prims",
    "torch/_decomp/",
    "torch/_refs/",
    "torch/_meta_registrations.py",
    "torch/overrides.py",
    "torch/utils/_python_dispatch.py",
    "torch/utils/_stats.py",
    "torch/utils/_pytree.py",
    "torch/utils/_cxx_pytree.py",
)
"""Files whose frames exist because a fake tensor is traced; on a GPU they would not be there."""
_RUNNER_FILES = ("<frozen runpy>", "<frozen importlib")
_RUNNER_ENDS = ("/runpy.py", "/weakref.py")
"""The finalizers that see releases are called through weakref."""
_SCRIPT_RUNNER = str(Path(__file__).with_name("script.py"))
_SKIPPED = -2
_OUTERMOST = -3
"""The frame that runs a script: what called it is memscope's own business."""


class _Anchor:
    """A frame that calls something else, and the ids of those outward of it once they were asked for."""

    __slots__ = ("frame", "outward")

    def __init__(self, frame: FrameType) -> None:
        self.frame = frame
        self.outward: list[int] | None = None


class StackRecorder:
    """Turns the current Python stack into a stack id of a trace.

    One dictionary look-up for each frame: a frame is known by its code object and instruction offset, so the line
    number and the file name are worked out once for each place in the code.

    Parameters
    ----------
    interner
        Where frames and stacks get their ids.
    is_enabled
        False records no stacks at all.
    strip_prefixes
        Folders cut off the front of file names, longest first.
    """

    def __init__(
        self, interner: StackInterner, *, is_enabled: bool = True, strip_prefixes: tuple[str, ...] = ()
    ) -> None:
        self._interner = interner
        self._is_enabled = is_enabled
        self._strip_prefixes = strip_prefixes
        self._frames: dict[tuple[int, int], int] = {}
        self._codes: dict[int, CodeType] = {}
        """Kept, so that no other code object gets the identity of one that is known; hashing them takes longest."""
        self._anchors: list[_Anchor] = []

    def current(self) -> int:
        """Id of the calling thread's stack, without memscope's and the tracer's own frames."""
        if not self._is_enabled:
            return NONE_ID
        frame_ids: list[int] = []
        self._walk(sys._getframe(1), len(self._anchors), frame_ids)
        return self._interner.stack(frame_ids)

    def hold(self) -> None:
        """Take it that all frames outward from the caller's stay as they are, until :meth:`let_go` is called.

        They do while the caller calls something else, and so a walk that comes upon them ends there.
        """
        self._anchors.append(_Anchor(sys._getframe(1)))

    def let_go(self) -> None:
        """End the innermost :meth:`hold`."""
        self._anchors.pop()

    def _walk(self, frame: FrameType | None, n_anchors: int, frame_ids: list[int]) -> None:
        """Add the ids of a frame and those outward of it, with what is known of the outermost so many that are held."""
        known = self._frames
        anchor = self._anchors[n_anchors - 1] if n_anchors else None
        held = None if anchor is None else anchor.frame
        while frame is not None:
            code = frame.f_code
            frame_id = known.get((id(code), frame.f_lasti))
            if frame_id is None:
                frame_id = self._intern(frame, code)
            if frame_id >= 0:
                frame_ids.append(frame_id)
            elif frame_id == _OUTERMOST:
                return
            if frame is held and anchor is not None:
                if anchor.outward is None:
                    outward: list[int] = []
                    self._walk(frame.f_back, n_anchors - 1, outward)
                    anchor.outward = outward
                frame_ids += anchor.outward
                return
            frame = frame.f_back

    def _intern(self, frame: FrameType, code: CodeType) -> int:
        filename = code.co_filename
        if filename == _SCRIPT_RUNNER:
            frame_id = _OUTERMOST
        elif is_tracer_frame(filename):
            frame_id = _SKIPPED
        else:
            for prefix in self._strip_prefixes:
                filename = filename.removeprefix(prefix)
            frame_id = self._interner.frame(code.co_name, filename, frame.f_lineno or 0)
        self._codes[id(code)] = code
        self._frames[id(code), frame.f_lasti] = frame_id
        return frame_id


def is_tracer_frame(filename: str) -> bool:
    """Whether code of this file runs only because a program is recorded."""
    if filename.startswith((_OWN_FOLDER, *_RUNNER_FILES)) or filename.endswith(_RUNNER_ENDS):
        return True
    start = filename.rfind("/torch/")
    return start >= 0 and filename[start + 1 :].startswith(_TRACER_FILES)


def user_line() -> str:
    """Where the user's own code is now, as ``file:line``: the innermost frame outside installed packages."""
    frame: FrameType | None = sys._getframe(1)
    fallback = "?"
    while frame is not None:
        filename = frame.f_code.co_filename
        if not is_tracer_frame(filename):
            place = f"{filename}:{frame.f_lineno}"
            if "site-packages" not in filename and not filename.startswith("<"):
                return place
            fallback = place if fallback == "?" else fallback
        frame = frame.f_back
    return fallback
