"""What a version of PyTorch decides about its allocator."""

from __future__ import annotations

import re

from memscope.trace.schema import TieRule

_NUMBERS = re.compile(r"(\d+)\.(\d+)")


def tie_rule_of(torch_version: str) -> TieRule:
    """Which of equal free blocks a release of PyTorch takes; an unreadable version counts as the newest."""
    match = _NUMBERS.match(torch_version)
    if match is None:
        return TieRule.SEGMENT_AGE
    release = int(match.group(1)), int(match.group(2))
    if release < (2, 12):
        return TieRule.ADDRESS
    return TieRule.BLOCK_AGE if release < (2, 13) else TieRule.SEGMENT_AGE
