"""``memscope serving``: how many requests a GPU could serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memscope.cli.options import (
    Choice,
    Command,
    GroupedCommand,
    console,
    force_option,
    grouped,
    html_option,
    json_option,
    print_json,
    wrote,
)
from memscope.cli.sweeping import progress
from memscope.errors import UsageError, needed_for
from memscope.units import parse_bytes

if TYPE_CHECKING:
    from memscope.gpus import GpuModel
    from memscope.serving.budget import BudgetInputs
    from memscope.serving.question import ServingPlan, ServingQuestion
    from memscope.serving.requests import RequestTable
    from memscope.serving.result import KvResult


def _size(_context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """A size option's bytes."""
    try:
        return None if text is None else parse_bytes(text)
    except UsageError as error:
        raise UsageError(f"--{str(parameter.name).replace('_', '-')}: {error}") from error


def _list(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Print the registry and leave."""
    if not wanted or context.resilient_parsing:
        return
    from memscope.serving.managers import MANAGERS

    for manager in MANAGERS.values():
        click.echo(f"{manager.name:14} {manager.summary}")
    context.exit()


_SIZE: dict[str, Any] = {"default": None, "metavar": "SIZE", "callback": _size}
_COUNT = click.IntRange(min=1)


def token_options(command: Command) -> Command:
    """How a token is kept: ``--kv-dtype --tensor-parallel``."""
    return grouped(
        "The model",
        click.option(
            "--kv-dtype",
            type=Choice(("bf16", "fp8", "int4")),
            default="bf16",
            help="Type of keys and values. [default: bf16]",
        ),
        click.option(
            "--tensor-parallel", type=_COUNT, default=1, metavar="N", help="GPUs that share the model. [default: 1]"
        ),
    )(command)


def request_options(command: Command) -> Command:
    """The requests to replay: from a file, or made."""
    return grouped(
        "The requests",
        click.option(
            "--requests",
            "file",
            default=None,
            type=click.Path(path_type=Path),
            help="A request trace: Azure, BurstGPT or plain CSV, Mooncake JSONL; .gz too.",
        ),
        click.option("--generate", "n_generated", type=int, default=None, metavar="N", help="Make N requests instead."),
        click.option("--rate", type=float, default=1.0, help="Generated requests a second. [default: 1]"),
        click.option("--lengths", default="sharegpt", help="Generated lengths: sharegpt, alpaca, long-prompt."),
        click.option("--burstiness", type=float, default=1.0, help="1: Poisson arrivals; more: bursty. [default: 1]"),
        click.option(
            "--shared-prefix",
            type=float,
            default=0.0,
            metavar="F",
            help="Share of generated requests that begin with a common prefix. [default: 0]",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the generator. [default: 0]"),
        click.option("--limit", type=_COUNT, default=None, metavar="N", help="The first N requests only."),
        click.option(
            "--samples",
            "n_samples",
            type=_COUNT,
            default=None,
            metavar="N",
            help="Answers of each request, which share its prompt. [default: 1, or the file's]",
        ),
        click.option("--speed-up", type=float, default=1.0, metavar="F", help="Let requests arrive F times as fast."),
    )(command)


def memory_options(command: Command) -> Command:
    """The device's memory, and what of it is not for keys and values."""
    return grouped(
        "The GPU's memory",
        click.option("--gpu", "gpu_name", default=None, help="A GPU of the catalogue, or a size. [default: H100-80GB]"),
        click.option("--capacity", **_SIZE, help="Memory of the device, in place of the GPU's."),
        click.option(
            "--utilisation", type=float, default=0.9, metavar="F", help="Share of it that is taken. [default: 0.9]"
        ),
        click.option("--context", **_SIZE, help="Held outside PyTorch. [default: the catalogue's estimate]"),
        click.option("--activations", **_SIZE, help="Held by activations. [default: an estimate]"),
        click.option("--cuda-graphs", **_SIZE, help="Held by CUDA graphs. [default: not measured]"),
        click.option("--weight-bytes", **_SIZE, help="Weights on one GPU. [default: counted]"),
        click.option("--kv-memory", **_SIZE, help="Memory for keys and values, in place of a budget."),
        click.option(
            "--weights",
            type=Choice(("none", "int8", "int4")),
            default="none",
            help="Quantisation. [default: none]",
        ),
    )(command)


def manager_options(command: Command) -> Command:
    """How key/value memory is managed."""
    return grouped(
        "How the cache is managed",
        click.option(
            "--max-length",
            type=_COUNT,
            default=None,
            metavar="N",
            help="The longest sequence. [default: the model's]",
        ),
        click.option(
            "--manager",
            "managers",
            multiple=True,
            help="A manager; repeatable. [default: all] (--list names them)",
        ),
        click.option(
            "--list", is_flag=True, expose_value=False, is_eager=True, callback=_list, help="Name the managers."
        ),
        click.option(
            "--block-size",
            "block_sizes",
            type=_COUNT,
            multiple=True,
            metavar="N",
            help="Tokens of a block; repeatable. [default: 16]",
        ),
        click.option(
            "--page-size",
            default="2MiB",
            metavar="SIZE",
            callback=_size,
            help="Page of virtual: 64KiB or 2MiB. [default: 2MiB]",
        ),
    )(command)


def scheduler_options(command: Command) -> Command:
    """How steps are formed, and what they cost."""
    return grouped(
        "Steps, and what they cost",
        click.option(
            "--scheduler",
            "policy",
            type=Choice(("static", "continuous", "chunked")),
            default="chunked",
            help="How steps are formed; chunked spreads prompts over steps. [default: chunked]",
        ),
        click.option("--max-requests", type=int, default=256, help="Sequences of a step. [default: 256]"),
        click.option("--max-step-tokens", type=int, default=8192, help="Tokens of a step. [default: 8192]"),
        click.option(
            "--preemption",
            type=Choice(("recompute", "swap")),
            default="recompute",
            help="What becomes of a request that has to make room. [default: recompute]",
        ),
        click.option("--swap-space", **_SIZE, help="Host memory for preempted requests."),
        click.option(
            "--tflops", type=float, default=None, help="Peak arithmetic, for time estimates. [default: the GPU's]"
        ),
        click.option("--bandwidth", **_SIZE, help="Peak memory traffic a second. [default: the GPU's]"),
    )(command)


@click.command(cls=GroupedCommand)
@grouped(
    "The model",
    click.option("--config", required=True, help="The model: its config.json, a folder with one, or a preset."),
)
@token_options
@request_options
@memory_options
@manager_options
@scheduler_options
@grouped(
    "Output",
    click.option("-j", "--jobs", "n_jobs", type=int, default=1, help="Replays at a time; -1: all cores. [default: 1]"),
    json_option,
    html_option,
    force_option,
)
def serving(as_json: bool, output: Path | None, force: bool, n_jobs: int, **given: Any) -> None:
    """How many requests a GPU could serve, under each way to manage its key/value cache.

    The GPU is shared out between weights and cache, and requests are replayed under several managers; without requests
    only the budget is printed. --list names the managers; an unknown --config the presets.
    """
    from memscope.reports.serving import ServingReport, print_serving, serving_json
    from memscope.serving.question import plan_serving

    if output is not None:
        with needed_for("an HTML page", "dash"):
            from memscope.reports.serving_html import write_serving_html
    plan = plan_serving(_question(given))
    report = ServingReport(plan, tuple(_replayed(plan, n_jobs)))
    if as_json:
        print_json(serving_json(report))
    if output is not None:
        write_serving_html(report, output, overwrite=force)
        wrote(output)
    elif not as_json:
        print_serving(report, console())


def _question(given: dict[str, Any]) -> ServingQuestion:
    """What the options ask."""
    from memscope.gpus import DEFAULT_GPU, find_gpu
    from memscope.serving.model_config import read_model_config
    from memscope.serving.question import ServingQuestion
    from memscope.serving.scheduler import SchedulerOptions

    scheduler = SchedulerOptions(
        policy=given["policy"],
        max_requests=given["max_requests"],
        max_step_tokens=given["max_step_tokens"],
        preemption=given["preemption"],
        swap_bytes=given["swap_space"] or 0,
    )
    config = read_model_config(given["config"])
    gpu = find_gpu(given["gpu_name"] or DEFAULT_GPU)
    return ServingQuestion(
        config,
        gpu.name,
        _memory(given, gpu),
        kv_dtype=given["kv_dtype"],
        tensor_parallel=given["tensor_parallel"],
        max_length=given["max_length"],
        managers=given["managers"],
        block_sizes=given["block_sizes"],
        page_bytes=given["page_size"],
        scheduler=scheduler,
        requests=_requests(given),
        tflops=given["tflops"],
        bandwidth_bytes_per_s=given["bandwidth"],
    )


def _replayed(plan: ServingPlan, n_jobs: int) -> list[KvResult]:
    """The plan's replays, with a bar while they run."""
    from memscope.serving.simulate import run_kv_jobs

    if not plan.jobs:
        return []
    with progress("serving") as on_done:
        return run_kv_jobs(plan.jobs, n_jobs, on_done)


def _memory(given: dict[str, Any], gpu: GpuModel) -> BudgetInputs:
    """The device's memory, and what is known or given of its shares."""
    from memscope.serving.budget import BudgetInputs
    from memscope.serving.question import CONTEXT_ESTIMATE

    context = given["context"]
    return BudgetInputs(
        total_bytes=gpu.total_bytes if given["capacity"] is None else given["capacity"],
        utilisation_frac=given["utilisation"],
        context_bytes=gpu.context_bytes if context is None else context,
        context_source=CONTEXT_ESTIMATE if context is None else "given",
        weight_format=given["weights"],
        weight_bytes=given["weight_bytes"],
        activation_bytes=given["activations"],
        cuda_graph_bytes=given["cuda_graphs"],
        kv_bytes=given["kv_memory"],
    )


def _requests(given: dict[str, Any]) -> RequestTable | None:
    """The requests to replay, read or made."""
    from memscope.serving.request_files import read_requests
    from memscope.serving.requests import GeneratorOptions, generate_requests

    if given["file"] is not None and given["n_generated"] is not None:
        raise UsageError("--requests and --generate exclude each other")
    if not given["speed_up"] > 0:
        raise UsageError("--speed-up must be above 0")
    if given["file"] is not None:
        requests = read_requests(given["file"])
    elif given["n_generated"] is not None:
        options = GeneratorOptions(
            given["n_generated"],
            given["rate"],
            given["lengths"],
            given["burstiness"],
            given["shared_prefix"],
        )
        requests = generate_requests(options, given["seed"])
    else:
        return None
    if given["limit"] is not None:
        requests = requests.first(given["limit"])
    if given["n_samples"] is not None:
        requests = requests.with_samples(given["n_samples"])
    return requests.faster(given["speed_up"]) if given["speed_up"] != 1 else requests
