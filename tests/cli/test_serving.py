"""``memscope serving``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from memscope.cli.options import FLAGS
from memscope.cli.replay import replay
from memscope.cli.serving import (
    manager_options,
    memory_options,
    request_options,
    scheduler_options,
    serving,
    token_options,
)
from memscope.errors import UsageError
from memscope.serving.managers import MANAGERS
from memscope.units import MiB
from tests.conftest import Outcome

GROUPS = (request_options, memory_options, token_options, manager_options, scheduler_options)


@click.command()
@memory_options
@manager_options
def given(**options: Any) -> dict[str, Any]:
    return options


def test_no_option_is_in_two_groups() -> None:
    names = [name for group in GROUPS for option in group(lambda: None).__click_params__ for name in option.opts]  # type: ignore[attr-defined]
    assert len(names) == len(set(names)) == 33


def test_sizes_arrive_as_bytes_and_a_bad_one_names_its_option() -> None:
    options = given.main(["--weight-bytes", "512 MiB"], standalone_mode=False)
    assert options["weight_bytes"] == 512 * MiB
    assert options["page_size"] == 2 * MiB
    assert options["capacity"] is None
    with pytest.raises(UsageError, match="--kv-memory: 'much' is not a size"):
        given.main(["--kv-memory", "much"], standalone_mode=False)


Run = Callable[..., Outcome]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
}
FAST = ("--config", "llama-3-8b", "--gpu", "A100-80GB", "--generate", 60, "--rate", 20)


def _json(memscope: Run, *arguments: object) -> dict[str, Any]:
    outcome = memscope("serving", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def test_a_configuration_file_gives_a_budget_that_sums_to_the_device(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json.gz"
    path.write_bytes(gzip.compress(json.dumps(LLAMA).encode()))
    budget = _json(memscope, "--config", path, "--capacity", "80GiB")["budget"]
    assert budget["total_bytes"] == 80 << 30
    assert sum(row["bytes"] or 0 for row in budget["rows"]) == 80 << 30
    assert {row["name"]: row["bytes"] for row in budget["rows"]}["CUDA graphs"] is None
    assert budget["kv_tokens"] == budget["kv_bytes"] // (2 * 32 * 8 * 128 * 2)
    assert budget["n_blocks"] == budget["kv_tokens"] // 16


def test_the_contract_holds_for_every_manager(memscope: Run) -> None:
    content = _json(memscope, *FAST)
    assert content["schema_version"] == 1
    assert [result["manager"] for result in content["results"]] == list(MANAGERS)
    for result in content["results"]:
        waste = result["waste"]
        parts = result["byte_us"]
        claimed = sum(parts[name] for name in ("tokens", "reservation", "internal", "external"))
        assert parts["tokens"] / claimed == result["kv_token_share_frac"]
        assert sum(waste.values()) + result["kv_token_share_frac"] == pytest.approx(1, abs=1e-12)
        assert result["n_completed"] == 60
        assert result["peak_concurrent_requests"] >= 1
        assert isinstance(result["n_preemptions"], int)
        assert result["concurrency"]
    by_name = {result["manager"]: result for result in content["results"]}
    assert by_name["paged"]["prefix_hit_frac"] is None
    assert by_name["paged-prefix"]["prefix_hit_frac"] == 0.0


def test_the_same_seed_gives_the_same_answer(memscope: Run) -> None:
    arguments = (*FAST, "--seed", 5, "--manager", "paged")
    assert _json(memscope, *arguments) == _json(memscope, *arguments)


def test_several_jobs_give_the_same_answer_as_one(memscope: Run) -> None:
    arguments = (*FAST, "--manager", "paged", "--manager", "buddy")
    assert _json(memscope, *arguments) == _json(memscope, *arguments, "--jobs", 2)


def test_block_sizes_are_swept_where_there_are_blocks(memscope: Run) -> None:
    arguments = ("--manager", "paged", "--manager", "max-length", "--block-size", 8, "--block-size", 64)
    results = _json(memscope, *FAST, *arguments)["results"]
    assert [(one["manager"], one["block_size"]) for one in results] == [
        ("paged", 8),
        ("paged", 64),
        ("max-length", None),
    ]
    assert results[0]["waste"]["internal_frac"] < results[1]["waste"]["internal_frac"]


def test_the_text_says_what_is_exact_and_what_is_an_estimate(memscope: Run) -> None:
    outcome = memscope("serving", *FAST, "--manager", "paged")
    assert outcome.code == 0
    for words in ("KV cache", "not measured", "paged (16)", "exact in the model", "estimates of the cost model"):
        assert words in outcome.out


def test_the_former_name_answers_the_same_and_says_the_new_one(memscope: Run) -> None:
    arguments = ("--config", "llama-3-8b", "--generate", 5, "--manager", "paged", "--json")
    now, before = memscope("serving", *arguments), memscope("kv", *arguments)
    assert before.code == now.code == 0
    assert before.out == now.out
    (line,) = before.err.splitlines()
    assert "'memscope kv --config' is now 'memscope serving'" in line
    listed = memscope("kv", "--list")
    assert listed.out == memscope("serving", "--list").out
    refused = memscope("kv", "--config", "llama-3-8b", "--preemption", "swap")
    assert refused.code == 1
    assert refused.err.splitlines()[1:] == ["memscope: swapping needs --swap-space"]


def test_options_that_errors_name_are_options_of_a_verb() -> None:
    known = {name for command in (serving, replay) for parameter in command.params for name in parameter.opts}
    named = {word for flag in FLAGS.values() for word in flag.split(" and ")}
    assert named <= known


def test_without_requests_the_budget_alone_is_printed(memscope: Run) -> None:
    outcome = memscope("serving", "--config", "llama-3-8b")
    assert outcome.code == 0
    assert "No requests were given" in outcome.out


def test_managers_can_be_listed(memscope: Run) -> None:
    outcome = memscope("serving", "--list")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == list(MANAGERS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", "no-such-model"), "there is no such file, and no preset of that name"),
        (("--config", "llama-3-8b", "--manager", "x", "--generate", 3), "there is no manager 'x'"),
        (("--config", "llama-3-8b", "--gpu", "x"), "'x' is not a known GPU"),
        (("--config", "llama-3-8b", "--capacity", "lots"), "--capacity: 'lots' is not a size"),
        (("--config", "llama-3-8b", "--gpu", "T4"), "nothing is left for keys and values"),
        (
            ("--config", "llama-3-8b", "--gpu", "80GiB", "--generate", 3),
            "the speed of 80GiB is not known: give --tflops",
        ),
        (("--config", "llama-3-8b", "--preemption", "swap"), "swapping needs --swap-space"),
        (("--config", "llama-3-8b", "--swap-space", "1GiB"), "--swap-space is used with --preemption swap only"),
        ((), "Missing option '--config'"),
        (("--config", "gpt2", "--at", 3), "there is no option '--at'"),
        (("--config", "llama-3-8b", "--generate", 3, "--requests", "x"), "exclude each other"),
        (("--config", "llama-3-8b", "--generate", 3, "--jobs", 0), "at least one job"),
        (("--config", "llama-3-8b", "--generate", 3, "--speed-up", 0), "--speed-up must be above 0"),
        (("--config", "llama-3-8b", "--tensor-parallel", 3), "8 key/value heads cannot be spread over 3 GPUs"),
        (("--config", "llama-3-8b", "--max-length", 10**9), "is more than 16,777,216"),
        (("--config", "llama-3-8b", "--page-size", "1MiB"), "a page is 64KiB or 2MiB"),
        (
            ("--config", "llama-3-8b", "--generate", 3, "--manager", "radix", "--block-size", 8),
            "radix: no blocks, so --block-size",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_1(memscope: Run, arguments: tuple[object, ...], message: str) -> None:
    outcome = memscope("serving", *arguments)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


@pytest.mark.parametrize("content", ["[]", "{", "\ufeff", '{"a": 1}', '{"hidden_size": -1}', '{"head_dim": "x"}'])
def test_a_bad_configuration_is_one_line_that_names_it(memscope: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8")
    outcome = memscope("serving", "--config", path)
    assert outcome.code == 1
    assert str(path) in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_bad_row_is_named(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,5,5\n1,x,5\n")
    outcome = memscope("serving", "--config", "llama-3-8b", "--requests", path)
    assert outcome.code == 1
    assert f"{path}: row 3: 'x' is not a number of tokens" in outcome.err


def test_the_report_is_one_offline_file_and_is_not_overwritten_unasked(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "kv.html"
    arguments = (*FAST, "--manager", "paged", "--manager", "max-length", "--block-size", 16, "--block-size", 64)
    outcome = memscope("serving", *arguments, "-o", path)
    assert outcome.code == 0, outcome.err
    assert f"wrote {path}" in outcome.err
    assert outcome.out == ""
    page = path.read_text(encoding="utf-8")
    assert "http-equiv" in page
    for words in ("paged (64)", "8,030,261,248 parameters", "exact in the model", "not measured", "estimated time"):
        assert words in page
    for place in ("kv-shares", "kv-sweep", "kv-time-0", "kv-time-2"):
        assert f'id="{place}"' in page
    assert "<script src=" not in page
    again = memscope("serving", *arguments, "-o", path)
    assert again.code == 1
    assert "exists already" in again.err
    assert memscope("serving", *arguments, "-o", path, "-f").code == 0


def test_a_report_without_requests_is_the_budget(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "budget.html"
    outcome = memscope("serving", "--config", "llama-3-8b", "-o", path, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["results"] == []
    page = path.read_text(encoding="utf-8")
    assert "KV cache" in page
    assert "kv-shares" not in page


def test_names_from_a_configuration_are_text_in_the_report(memscope: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA | {"_name_or_path": "<img src=x>"}), encoding="utf-8")
    assert memscope("serving", "--config", path, "-o", tmp_path / "kv.html").code == 0
    page = (tmp_path / "kv.html").read_text(encoding="utf-8")
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page


def test_samples_share_their_prompts_where_the_manager_can(memscope: Run) -> None:
    arguments = (*FAST, "--samples", 4, "--manager", "paged", "--manager", "max-length")
    content = _json(memscope, *arguments)
    assert content["requests"]["n_sequences"] == 4 * content["requests"]["n_requests"]
    paged, reserved = content["results"]
    assert paged["n_block_copies"] > 0
    assert 0 < paged["sharing_saved_frac"] < 1
    assert (reserved["n_block_copies"], reserved["saved_byte_us"]) == (0, 0)
    out = memscope("serving", *arguments).out
    assert "240 samples of them" in out
    assert "paged (16): shared prompts save" in out


def test_memory_over_time_is_in_the_object_and_sums_to_the_memory(memscope: Run) -> None:
    (result,) = _json(memscope, *FAST, "--manager", "paged")["results"]
    over_time = result["memory_over_time"]
    names = ("token_bytes", "reservation_bytes", "internal_bytes", "external_bytes", "unclaimed_bytes")
    for parts in zip(*(over_time[name] for name in names), strict=True):
        assert sum(parts) == pytest.approx(result["capacity_bytes"])
    assert len(over_time["end_us"]) == len(result["concurrency"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--rate", "1e-320"), "the requests would not arrive within 32 years: let them come faster"),
        (("--rate", "1e-12"), "the requests would not arrive within 32 years: let them come faster"),
        (("--speed-up", "1e-320"), "the requests would not arrive within 32 years: let them come faster"),
        (("--speed-up", "1e-17"), "the requests would not arrive within 32 years: let them come faster"),
        (("--burstiness", "1e-320"), "a rate and a burstiness must be above 0, a shared share between 0 and 1"),
        (("--rate", "nan"), "a rate and a burstiness must be above 0, a shared share between 0 and 1"),
        (("--tflops", "nan"), "a speed must be at least 1,000,000 operations, or bytes, a second"),
        (("--tflops", "1e-300"), "a speed must be at least 1,000,000 operations, or bytes, a second"),
        (("--tflops", "inf"), "a speed must be at least 1,000,000 operations, or bytes, a second"),
    ],
)
def test_a_number_that_no_replay_can_be_made_with_is_one_line(
    memscope: Run, options: tuple[str, ...], reason: str
) -> None:
    arguments = ("serving", "--config", "llama-3-8b", "--generate", "10", "--manager", "paged", *options)
    assert memscope(*arguments) == (1, "", f"memscope: {reason}\n")


def test_a_capacity_of_nothing_is_not_taken_for_none_given(memscope: Run) -> None:
    outcome = memscope("serving", "--config", "llama-3-8b", "--capacity", "0")
    assert (outcome.code, outcome.out) == (1, "")
    assert "nothing is left for keys and values of 0 B" in outcome.err


def test_a_seed_below_0_is_bad_usage(memscope: Run) -> None:
    assert "'--seed': -1 is not in the range" in memscope("serving", *FAST, "--seed", "-1").err
