"""Frames are found by file and function, in each stack, as by trying every frame."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from memscope.trace.frames import FramePattern, StackSearch, any_frame
from tests.attribution.scripted import STACKS, Script

PATTERNS = [
    FramePattern(r"/net\.py$"),
    FramePattern(function="^wrapper$"),
    FramePattern(r"torch/optim/", "wrapper"),
    FramePattern(r"torch/optim/", "^train$"),  # both are in one stack, but in no one frame
    FramePattern("nowhere"),
    FramePattern(),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_stack_has_a_pattern_if_one_of_its_frames_has_file_and_function(pattern: FramePattern) -> None:
    script = Script()
    for name in STACKS:
        script.alloc(name, name)
    trace = script.trace()
    found = StackSearch(trace).stacks(pattern)
    expected = [
        any(re.search(pattern.file, file) and re.search(pattern.function, function) for function, file, _ in frames)
        for frames in STACKS.values()
    ]
    assert [bool(found[trace.stack_id[script.rows[name]]]) for name in STACKS] == expected
    hits = [pattern.matches(frame.filename, frame.name) for frame in map(trace.frame, range(trace.stacks.n_frames))]
    assert StackSearch(trace).frames(pattern).tolist() == hits


def test_files_of_windows_are_found_by_the_same_patterns() -> None:
    script = Script({"windows": [("_call_impl", "C:\\py\\torch\\nn\\modules\\module.py", 2)]})
    script.alloc("a", "windows")
    assert StackSearch(script.trace()).stacks(FramePattern(r"torch/nn/modules/module\.py$")).tolist() == [True]


def test_an_empty_stack_has_no_frame() -> None:
    hit = np.array([True, False])
    assert any_frame(hit, np.array([0, 1], np.int32), np.array([0, 0, 1, 2])).tolist() == [False, True, False]


@pytest.mark.parametrize(("callee", "caller"), [(a, b) for a in PATTERNS for b in PATTERNS], ids=str)
def test_a_call_is_two_frames_one_after_the_other_in_one_stack(callee: FramePattern, caller: FramePattern) -> None:
    script = Script()
    for name in STACKS:
        script.alloc(name, name)
    trace = script.trace()
    found = StackSearch(trace).calls(callee, caller)
    expected = [
        any(callee.matches(*inner[1::-1]) and caller.matches(*outer[1::-1]) for inner, outer in pairwise(frames))
        for frames in STACKS.values()
    ]
    assert [bool(found[trace.stack_id[script.rows[name]]]) for name in STACKS] == expected
