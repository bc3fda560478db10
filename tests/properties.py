"""How many examples a property is tried with: a share of what the profile in force asks for.

The profiles are registered in ``conftest.py``, before any test is made.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings

USUAL_EXAMPLES = 100
"""Of the profile under which each property is tried with as many examples as it asks for."""


def examples(n: int, **others: Any) -> settings:
    """Settings that try ``n`` examples, or as many more as the profile has more than the usual one."""
    return settings(max_examples=max(n * settings().max_examples // USUAL_EXAMPLES, 1), **others)
