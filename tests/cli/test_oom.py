"""``memscope oom``: the JSON contract, the words and their order, the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.container import write_container
from tests.conftest import Outcome
from tests.oom.planted import PLANTS, plant
from tests.oracles import BAD, needs_shared

Run = Callable[..., Outcome]
SHIPPED = Path(__file__).parents[2] / "traces" / "tiny-out-of-memory.memscope"


def written(tmp_path: Path, name: str, **metadata: object) -> Path:
    return write_container(plant(name, 1).trace(**metadata), tmp_path / "run.memscope")


@pytest.mark.parametrize("name", list(PLANTS))
def test_json_has_the_keys_that_scripts_rely_on(memscope: Run, tmp_path: Path, name: str) -> None:
    outcome = memscope("oom", written(tmp_path, name), "--json")
    assert outcome.code == 0
    said = json.loads(outcome.out)
    assert said["schema_version"] == 1
    assert said["verdict"] == name
    assert {"event", "requested_bytes", "free_bytes", "owners", "counterfactual", "trace", "trust"} <= set(said)
    if name == "no-oom":
        assert said["event"] is said["requested_bytes"] is said["free_bytes"] is said["counterfactual"] is None
        return
    assert said["free_bytes"] == said["reserved_bytes"] - said["active_bytes"]
    assert said["counterfactual"] == said["counterfactuals"][0]
    assert said["counterfactual"]["checked"] in ("exact", "modelled")
    assert len(said["owners"]) <= 5
    sizes = [owner["block_bytes"] for owner in said["owners"]]
    assert sizes == sorted(sizes, reverse=True)


def test_the_text_begins_with_the_verdict_and_ends_with_how_far_to_trust_it(memscope: Run, tmp_path: Path) -> None:
    path = written(tmp_path, "external-fragmentation")
    out = memscope("oom", path).out
    said = json.loads(memscope("oom", path, "--json").out)
    assert out.lower().startswith(said["headline"].lower())
    parts = ["Where memory was free", "Who held memory", "What would have let it through", "run.memscope"]
    positions = [out.index(part) for part in parts]
    assert positions == sorted(positions)
    assert "checked by replay" in out
    assert said["counterfactual"]["text"] in out


def test_the_shipped_trace_ran_out_of_capacity(memscope: Run) -> None:
    outcome = memscope("oom", SHIPPED)
    assert outcome.code == 0
    assert outcome.out.startswith("Capacity: 64.0 MiB asked")
    assert "a dry run" in outcome.out


def test_no_failure_is_said_in_one_line_and_is_no_error(memscope: Run, tmp_path: Path) -> None:
    outcome = memscope("oom", written(tmp_path, "no-oom"))
    assert outcome.code == 0
    assert outcome.out.splitlines()[0] == "No request failed"


def test_what_cannot_be_told_is_printed_and_exits_with_3(memscope: Run, tmp_path: Path) -> None:
    path = written(tmp_path, "capacity", has_segment_events=False)
    outcome = memscope("oom", path, "--json")
    assert outcome.code == 3
    assert json.loads(outcome.out)["verdict"] == "cannot-tell"
    assert "run.memscope" in outcome.err
    assert "segments were not recorded" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_an_event_that_is_no_failure_is_one_line_and_1(memscope: Run, tmp_path: Path) -> None:
    outcome = memscope("oom", written(tmp_path, "capacity"), "--at", "0")
    assert outcome.code == 1
    assert "event 0 is not an out-of-memory error" in outcome.err


@needs_shared
def test_a_trace_that_contradicts_itself_is_refused(memscope: Run) -> None:
    outcome = memscope("oom", BAD / "contradictory-synthetic.pickle.gz")
    assert outcome.code == 3
    assert "contradicts itself" in outcome.err
    assert not outcome.out


def test_the_size_of_the_device_tells_what_lay_outside_pytorch(memscope: Run, tmp_path: Path) -> None:
    program = plant("capacity", 1)
    program.knows_total = False
    path = write_container(program.trace(), tmp_path / "run.memscope")
    without = memscope("oom", path, "--json")
    assert "--capacity" in memscope("oom", path).out.replace("\n", " ")
    assert json.loads(without.out)["outside"]["total_bytes"] is None
    total = program.total + (3 << 30)
    told = memscope("oom", path, "--capacity", str(total), "--json")
    assert json.loads(told.out)["outside"]["total_bytes"] == program.outside_bytes + (3 << 30)
    spilled = memscope("oom", path, "--capacity", "1MiB").out.replace("\n", " ")
    assert "on a device of 1.0 MiB: what is beyond it lay elsewhere" in " ".join(spilled.split())


def test_a_size_that_was_recorded_is_not_replaced(memscope: Run) -> None:
    outcome = memscope("oom", SHIPPED, "--capacity", "24GiB")
    assert outcome.code == 1
    assert "--capacity: the memory of device 0 is recorded" in outcome.err
