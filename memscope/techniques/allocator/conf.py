"""``conf:SETTINGS``: PyTorch's caching allocator under other settings.

Changes no request: the same are served under ``PYTORCH_ALLOC_CONF=SETTINGS``, decision by decision.
Costs nothing but what the setting does itself. Source: ``c10/cuda/CUDACachingAllocator.cpp``, as the replay has it.
"""

from __future__ import annotations

from memscope.errors import UsageError
from memscope.replay.config import CachingAllocatorConfig, recorded_tie_rule
from memscope.techniques.program import Program
from memscope.techniques.technique import Change, Technique


def apply(program: Program, text: str) -> Change:
    """Serve the same requests under other settings.

    Raises
    ------
    UsageError
        If there are none, or they are no settings.
    """
    if not text:
        raise UsageError("conf: give settings, as in conf:expandable_segments:True")
    metadata = program.device.trace.metadata
    CachingAllocatorConfig.parse(text, tie_rule=recorded_tie_rule(metadata))
    recorded = CachingAllocatorConfig.from_trace(program.device.trace, program.device.index)
    is_same = CachingAllocatorConfig.parse(text, tie_rule=recorded_tie_rule(metadata)).to_conf() == recorded.to_conf()
    note = "these are the recorded settings" if is_same else None
    return Change(program, how=f"PYTORCH_ALLOC_CONF={text}", conf=text, note=note)


TECHNIQUE = Technique(
    name="conf",
    usage="conf:SETTINGS",
    summary="the same requests under other settings of PyTorch's allocator",
    proof="changed-program",
    apply=apply,
    defaults=("expandable_segments:True", "max_split_size_mb:128"),
)
