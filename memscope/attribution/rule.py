"""What a rule is: one line of the table that tells categories without identities."""

from __future__ import annotations

from dataclasses import dataclass, field

from memscope.attribution.frames import FramePattern
from memscope.attribution.life import Life
from memscope.attribution.phases import Phase
from memscope.trace.categories import Category


@dataclass(frozen=True)
class Rule:
    """One line of the table. Everything that it names must hold.

    Attributes
    ----------
    name, reason
        What it is called, and why this means the category.
    category
        What an allocation that it fits is.
    frames
        Patterns of which every one must be found somewhere in the stack. Without any, a stack is not needed.
    phases
        Phases of which one must have been under way; none means any.
    lives
        What must hold of the allocation's life.
    sizes_bytes
        Requested bytes of which one must have been asked for; none means any. For libraries that always ask for the
        same.
    is_users
        Whether the user wrote it.
    """

    name: str
    category: Category
    reason: str
    frames: tuple[FramePattern, ...] = field(default=())
    phases: tuple[Phase, ...] = ()
    lives: tuple[Life, ...] = ()
    sizes_bytes: tuple[int, ...] = ()
    is_users: bool = False

    @property
    def needs_more(self) -> bool:
        """Whether the stack alone does not decide."""
        return bool(self.lives or self.phases or self.sizes_bytes or not self.frames)
