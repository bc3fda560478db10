"""A trace's provenance survives writing, and its settings have the types that torch gives them."""

from __future__ import annotations

import json

import pytest

from memscope.trace.metadata import TraceMetadata, check_settings
from memscope.trace.schema import TieRule


def test_what_was_written_is_read_back_and_newer_keys_are_passed_over() -> None:
    metadata = TraceMetadata(
        source="cuda",
        tie_rule=TieRule.BLOCK_AGE,
        device_names={0: "H100"},
        device_total_bytes={0: 80 << 30},
        memory_fraction={1: 0.5},
        notes=("one", "two"),
        extra={"emulated": True},
    )
    record = json.loads(json.dumps(metadata.to_json()))
    assert TraceMetadata.from_json(record | {"a newer key": 1}) == metadata


def test_texts_are_on_one_line_each_whoever_wrote_them() -> None:
    evil = "a\n\x1b[31m\u202e"
    metadata = TraceMetadata(
        source=evil,
        source_file=evil,
        torch_version=evil,
        alloc_conf=evil,
        device_names={0: evil},
        notes=(evil, "b" * 5000),
    )
    texts = (metadata.source, metadata.source_file, metadata.torch_version, metadata.alloc_conf)
    assert {*texts, metadata.device_names[0], metadata.notes[0]} == {r"a\n\x1b[31m\u202e"}
    assert [len(note) for note in metadata.shown_notes] == [len(metadata.notes[0]), 1000]
    assert TraceMetadata.from_json(json.loads(json.dumps(metadata.to_json()))) == metadata


def test_an_emulated_device_is_never_taken_for_a_gpu() -> None:
    assert TraceMetadata(source="cuda", extra={"emulated": True}).origin == "cuda on an emulated device"
    assert TraceMetadata(source="cuda").origin == "cuda"


@pytest.mark.parametrize(
    "settings",
    [
        {"max_split_size": "a"},
        {"max_split_size": 10**30},
        {"max_split_size": True},
        {"garbage_collection_threshold": -(10**30)},
        {"expandable_segments": "no"},
        {"PYTORCH_CUDA_ALLOC_CONF": 3},
        {"roundup_power2_divisions": 4},
        {"roundup_power2_divisions": {"1": -7}},
        {"roundup_power2_divisions": {"1": 1 << 70}},
    ],
)
def test_settings_of_the_wrong_kind_are_refused_by_name(settings: dict[str, object]) -> None:
    name = next(iter(settings))
    with pytest.raises(ValueError, match=name):
        check_settings(settings)
    with pytest.raises(ValueError, match=name):
        TraceMetadata.from_json({"source": "synthetic", "allocator_settings": settings})


def test_settings_as_torch_writes_them_are_accepted() -> None:
    table = {str(1 << i): 0 for i in range(16)}
    check_settings({"max_split_size": -1, "expandable_segments": True, "roundup_power2_divisions": table})
    check_settings({})
