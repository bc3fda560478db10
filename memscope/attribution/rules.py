"""Rules that tell an allocation's category without its identity, and which stacks they fit.

The rules are data: an ordered table (:mod:`memscope.attribution.rule_table`), first match wins. A rule looks at the
frames of the stack, at the phase of the program, and at how long the allocation lives; a size counts only where a
library always asks for exactly that many bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memscope.attribution.frames import FramePattern, StackSearch
from memscope.attribution.rule import Rule
from memscope.attribution.rule_table import CONTEXT_RULES, RULES
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int32Array
from memscope.trace.trace import Trace

__all__ = ["ALL_RULES", "RULES", "FramePattern", "Rule", "match_stacks", "stack_hits"]

ALL_RULES: tuple[Rule, ...] = (*RULES, *CONTEXT_RULES)
"""The whole table: first the rules that read stacks, then those that need none."""


def stack_hits(trace: Trace, rule: Rule, search: StackSearch) -> BoolArray:
    """Which stacks have every frame that a rule asks for: bool (stacks,)."""
    hit = np.ones(len(trace.stacks), np.bool_)
    for pattern in rule.frames:
        hit &= search.stacks(pattern)
    return hit


def match_stacks(trace: Trace, rules: Sequence[Rule] = RULES) -> Int32Array:
    """First rule that each stack decides by itself: int32 (stacks,), positions in ``rules``, −1 for none.

    Rules that also ask for a phase, a life or a size are left out: those are an allocation's, not a stack's.
    """
    search = StackSearch(trace)
    matched = np.full(len(trace.stacks), NONE_ID, np.int32)
    for rule_id in range(len(rules) - 1, -1, -1):
        if not rules[rule_id].needs_more:
            matched[stack_hits(trace, rules[rule_id], search)] = rule_id
    return matched
