"""Collectives of Python objects in a dry run: what other ranks would send is what this one has.

They would be sent as tensors, whose values a dry run does not have; so the objects themselves are passed on.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from typing import Any

from memscope.capture.patches import Patches
from memscope.capture.stacks import user_line
from memscope.errors import CaptureError


class ObjectCollectives:
    """Stand-ins for those collectives, where the other ranks are not there.

    Parameters
    ----------
    is_alone
        Whether the other ranks of a group are not there.
    """

    def __init__(self, is_alone: Callable[[Any], bool]) -> None:
        self._is_alone = is_alone
        self._has_said = False

    def install(self, patches: Patches, replace: Callable[[Patches, Any, Any], None]) -> None:
        """Put the replacements in place."""
        from torch.distributed import distributed_c10d as c10d

        for stand_in in (
            self.all_gather_object,
            self.gather_object,
            self.broadcast_object_list,
            self.scatter_object_list,
            self.send_object_list,
            self.recv_object_list,
        ):
            plain = getattr(c10d, stand_in.__name__, None)
            if plain is not None:
                replace(patches, plain, self._chosen(plain, stand_in))

    def _chosen(self, plain: Callable[..., Any], stand_in: Callable[..., Any]) -> Callable[..., Any]:
        from torch.utils._python_dispatch import _disable_current_modes

        @functools.wraps(plain)
        def chosen(*args: Any, **options: Any) -> Any:
            group = options.get("group") or next((arg for arg in args if _is_group(arg)), None)
            if self._is_alone(group):
                return stand_in(*args, **options)
            with _disable_current_modes():  # objects become real tensors of the host
                return plain(*args, **options)

        return chosen

    def all_gather_object(self, object_list: list[Any], obj: Any, group: Any = None, **_: Any) -> None:
        """Every rank's object is a copy of this one's."""
        if _rank(group) >= 0:
            object_list[:] = [copy.deepcopy(obj) for _ in object_list]

    def gather_object(
        self, obj: Any, object_gather_list: list[Any] | None = None, dst: Any = None, group: Any = None, **_: Any
    ) -> None:
        """So it is where they are gathered."""
        del dst
        if object_gather_list is not None:
            self.all_gather_object(object_gather_list, obj, group)

    def broadcast_object_list(self, object_list: list[Any], src: int | None = None, *args: Any, **options: Any) -> None:
        """The list stays as it is: on other ranks than the source, with what stood there before."""
        del args
        source = options.get("group_src") if src is None else src
        if source not in (None, _rank(None)) and None in object_list:
            self._say("gets nothing from another rank: what it broadcasts is not known here")

    def scatter_object_list(
        self,
        scatter_object_output_list: list[Any],
        scatter_object_input_list: list[Any] | None = None,
        src: Any = None,
        group: Any = None,
        **_: Any,
    ) -> None:
        """The part that is this rank's, where the list is there; else nothing changes."""
        del src
        if scatter_object_input_list:
            scatter_object_output_list[0] = copy.deepcopy(scatter_object_input_list[max(_rank(group), 0)])

    def send_object_list(self, *_: Any, **__: Any) -> None:
        """Nobody is there to receive it."""

    def recv_object_list(self, *_: Any, **__: Any) -> int:
        """Nobody is there to send it.

        Raises
        ------
        CaptureError
            Always: what would have come decides what the program does.
        """
        raise CaptureError(
            f"{user_line()}: waits for objects of another rank, which a dry run does not have. Where a pipeline asks "
            "its neighbours for shapes, give each PipelineStage its input_args and output_args"
        )

    def _say(self, what: str) -> None:
        if not self._has_said:
            self._has_said = True
            sys.stderr.write(f"memscope: dry run: {user_line()} {what} (said once)\n")


def _rank(group: Any) -> int:
    import torch.distributed as dist

    return int(dist.get_rank(group))


def _is_group(value: object) -> bool:
    from torch.distributed import ProcessGroup

    return isinstance(value, ProcessGroup)
