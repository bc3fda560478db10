"""A redacted trace: no private name is left in any table, and every number is what it was."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from memscope.analysis import Analysis, load
from memscope.errors import UsageError
from memscope.export.redaction import Redaction, changed_allocations, redact
from memscope.replay.verify.verify import verify_device
from memscope.trace.builder import TraceBuilder
from memscope.trace.categories import Category
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import Action, MarkKind
from memscope.trace.trace import Trace
from tests.oracles import ORACLE, needs_shared

SHIPPED = sorted((Path(__file__).parents[2] / "traces").glob("*.memscope"))
SECRET = "zanzibar"
"""Stands in every place that holds a text."""


def secret_trace() -> Trace:
    """A trace that has a secret in every role that a text can have."""
    builder = TraceBuilder()
    frames = [
        builder.stacks.frame(f"{SECRET}_forward", f"/home/{SECRET}/project/{SECRET}.py", 3),
        builder.stacks.frame(f"{SECRET}::Foo::run()", f"/home/{SECRET}/lib{SECRET}.so", 0),
        builder.stacks.frame("forward", f"/home/{SECRET}/venv/lib/python3.11/site-packages/torch/nn/functional.py", 9),
        builder.stacks.frame(f"at::native::run<{SECRET}>", "??", 0),
        builder.stacks.frame("main", f"/home/{SECRET}/lib/python3.11/site-packages/{SECRET}/x.py", 1),
    ]
    stack = builder.stacks.stack(frames)
    event = builder.add_event(
        Action.ALLOC, address=4096, size_bytes=512, stack_id=stack, label=f"range of {SECRET}@host.{SECRET}.org"
    )
    builder.set_owner(event, Category.WEIGHTS, f"{SECRET}.layers.3.{SECRET}_proj.weight")
    builder.add_mark(MarkKind.STEP, f"{SECRET} 7", 0)
    builder.add_mark(MarkKind.PHASE_BEGIN, f"phase {SECRET}", 0)
    return builder.build(
        TraceMetadata(
            source="synthetic",
            source_file=f"{SECRET}.pickle",
            torch_version=f"2.13.0+{SECRET}",
            alloc_conf=f"backend:/home/{SECRET}/alloc.so",
            allocator_settings={
                "PYTORCH_CUDA_ALLOC_CONF": f"/{SECRET}",
                "max_split_size": 3,
                f"{SECRET} key": 1,
                "x": {"y": SECRET},
            },
            notes=(
                f"read values at /home/{SECRET}/project/{SECRET}.py:3 (2)",
                f"run on host.{SECRET}.org by {SECRET}_forward",
                f"in {SECRET}_forward",
                "a dry run: tensors without values",
                "/srv/other/place was full",
            ),
            extra={
                "hostname": SECRET,
                SECRET: 3,
                "device_parts": {"0": [[f"{SECRET} process", 1, 2]]},
                "gpu": "L4-24GB",
            },
            block_layout_recorded=False,
        )
    )


def everything(trace: Trace, folder: Path) -> str:
    """Every text and every byte of every table of a trace's file."""
    path = write_container(trace, folder / "redacted.memscope", overwrite=True)
    found = []
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            content = file.read(name)
            found.append(content.decode("latin-1"))
            if name.endswith(".parquet"):
                found += [str(table) for table in pq.read_table(io.BytesIO(content)).to_pylist()]
    return "\n".join(found)


def test_no_private_name_is_left_in_any_table(tmp_path: Path) -> None:
    trace = secret_trace()
    assert SECRET in everything(trace, tmp_path)
    found = redact(trace)
    assert SECRET not in everything(found.trace, tmp_path)
    assert SECRET not in json.dumps([found.replaced, found.kept, list(found.left_out)])
    assert "/srv/other" not in everything(found.trace, tmp_path)
    assert "a dry run: tensors without values" in found.trace.metadata.notes
    assert any(note.startswith("in function_") for note in found.trace.metadata.notes)
    assert found.trace.metadata.torch_version == "2.13.0"
    assert found.trace.metadata.alloc_conf is None
    assert len(found.left_out) >= 4


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_originals_are_gone_unless_the_report_lists_them(tmp_path: Path, path: Path) -> None:
    trace = load(path).trace
    found = redact(trace)
    kept = {name for names in found.kept.values() for name in names}
    left = set(found.trace.strings) & set(trace.strings)
    assert left <= kept
    text = everything(found.trace, tmp_path)
    assert "generate.py" not in text.replace("generation", "")
    assert "traces/" not in text
    assert sum(found.replaced.values()) > 0


def assert_same_numbers(before: Trace, after: Trace) -> None:
    for name in ("time_ns", "action", "device", "address", "size_bytes", "stream_id", "pool_id", "stack_id"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    for table in ("segments", "blocks", "samples", "marks", "owners", "cache_layers", "cache_lengths"):
        columns, other = getattr(before, table).columns(), getattr(after, table).columns()
        for name, column in columns.items():
            if name not in ("label_id", "tensor_id", "kind_id"):
                assert np.array_equal(column, other[name]), (table, name)
            else:
                assert np.array_equal(column == -1, other[name] == -1), (table, name)
    assert np.array_equal(before.stacks.offsets, after.stacks.offsets)
    assert np.array_equal(before.stacks.frame_ids, after.stacks.frame_ids)
    assert np.array_equal(before.stacks.line, after.stacks.line)
    for field in dataclasses.fields(before.metadata):
        if field.name not in ("source_file", "torch_version", "alloc_conf", "allocator_settings", "notes", "extra"):
            assert getattr(before.metadata, field.name) == getattr(after.metadata, field.name), field.name


def distinct(trace: Trace, ids: np.ndarray) -> int:
    return len({trace.strings[i] for i in np.unique(ids[ids >= 0]).tolist()})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_numbers_categories_and_verification_are_what_they_were(path: Path) -> None:
    before = load(path)
    found = redact(before.trace)
    after = Analysis(found.trace, path)
    assert_same_numbers(before.trace, found.trace)
    assert distinct(before.trace, before.trace.owners.label_id) == distinct(found.trace, found.trace.owners.label_id)
    assert changed_allocations(before, found) == 0
    assert [row.bytes for row in before.peak().ledger.rows] == [row.bytes for row in after.peak().ledger.rows]
    assert bool(before.kv_lens()) == bool(after.kv_lens())
    results = [[verify_device(lifetimes) for lifetimes in trace.lifetimes] for trace in (before, after)]
    assert results[0] == results[1]
    assert all(result.exact for result in results[0])


@needs_shared
def test_recordings_of_a_gpu_keep_their_numbers(tmp_path: Path) -> None:
    paths = sorted(ORACLE.rglob("*.pickle.gz"), key=lambda path: (path.stat().st_size, path.name))[:40:8]
    assert paths
    for path in paths:
        before = load(path)
        found = redact(before.trace)
        assert_same_numbers(before.trace, found.trace)
        text = everything(found.trace, tmp_path)
        assert "/home/" not in text
        assert "/root/" not in text
        assert "/tmp/" not in text


def test_the_same_key_gives_the_same_pseudonyms() -> None:
    def strings(found: Redaction) -> set[str]:
        return {text for text in found.trace.strings if text.startswith(("file_", "function_"))}

    one, again, other = redact(secret_trace()), redact(secret_trace()), redact(secret_trace(), "mine")
    assert strings(one) == strings(again)
    assert not strings(one) & strings(other)
    with pytest.raises(UsageError, match="longer than 64 bytes"):
        redact(secret_trace(), "k" * 65)


def test_a_redacted_trace_is_redacted_again_without_harm() -> None:
    once = redact(load(SHIPPED[0]).trace)
    twice = redact(once.trace)
    assert_same_numbers(once.trace, twice.trace)


def test_what_only_a_private_name_told_is_counted() -> None:
    builder = TraceBuilder()
    stack = builder.stacks.stack([builder.stacks.frame("backward", "/home/me/x.py", 1)])
    builder.add_event(Action.ALLOC, address=4096, size_bytes=512, stack_id=stack)
    trace = builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False))
    analysis = Analysis(trace)
    assert changed_allocations(analysis, redact(trace)) == 0


@pytest.mark.parametrize(
    "label",
    [
        "saved for backward",
        "copied to the device",
        "inside sum",
        "exp_avg of a parameter",
        "receive buffer of model.layers.3",
        "all-gather buffer",
        "reduce-scatter buffer of forward",
        "DDP buckets",
        "cuBLAS workspace (modelled)",
        "argument 0",
        "output result",
    ],
)
def test_words_of_memscopes_own_stay(label: str) -> None:
    builder = TraceBuilder()
    event = builder.add_event(Action.ALLOC, address=4096, size_bytes=512)
    builder.set_owner(event, Category.ACTIVATIONS, label)
    found = redact(builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False)))
    assert found.kept["owners"] == (label,)
    assert "owners" not in found.replaced


def test_an_owner_renamed_in_part_counts_as_replaced() -> None:
    builder = TraceBuilder()
    for i, label in enumerate(("emb.weight", "emb.bias", "weight")):
        event = builder.add_event(Action.ALLOC, address=4096 * (i + 1), size_bytes=512)
        builder.set_owner(event, Category.WEIGHTS, label)
    found = redact(builder.build(TraceMetadata(source="synthetic", block_layout_recorded=False)))
    assert (found.replaced["owners"], found.replaced["words of owners"]) == (2, 1)
    assert found.kept["owners"] == ("weight",)


def test_no_name_of_a_class_is_left() -> None:
    """Wherever one can stand: qualified functions, template arguments, owners, layers of caches, types of tensors."""
    whole = load(SHIPPED[0].with_name("tiny-gpt2-generate.memscope")).trace
    names = {
        "stacks": "SecretNet.forward",
        "kernels": "void torch::autograd::CppNode<SecretFunction>::apply(std::vector<SecretType>)",
        "owners": "SecretNet.weight of exp_avg",
        "kinds": "SecretLayer",
        "tensors": "SecretTensor [4, 4]",
        "python file": "/home/me/train.py",
        "c++ file": "/home/me/kernels.cpp",
    }
    strings = (*whole.strings, *names.values())
    at = {name: np.int32(len(whole.strings) + i) for i, name in enumerate(names)}

    def first_becomes(ids: np.ndarray, new: np.int32) -> np.ndarray:
        return np.concatenate([[new], ids[1:]]).astype(np.int32)

    name_id = first_becomes(whole.stacks.name_id, at["stacks"])
    filename_id = first_becomes(whole.stacks.filename_id, at["python file"])
    name_id[1], filename_id[1] = at["kernels"], at["c++ file"]
    owners = dataclasses.replace(
        whole.owners,
        label_id=first_becomes(whole.owners.label_id, at["owners"]),
        tensor_id=first_becomes(whole.owners.tensor_id, at["tensors"]),
    )
    planted = dataclasses.replace(
        whole,
        strings=strings,
        stacks=dataclasses.replace(whole.stacks, name_id=name_id, filename_id=filename_id),
        owners=owners,
        cache_layers=dataclasses.replace(
            whole.cache_layers, kind_id=first_becomes(whole.cache_layers.kind_id, at["kinds"])
        ),
    )
    left = redact(planted).trace.strings
    assert not [text for text in left if "Secret" in text]
    assert "torch::autograd::CppNode::apply" in left
