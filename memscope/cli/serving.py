"""``memscope serving``: how many requests a GPU could serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memscope.cli.options import announce_compilation, console, force_option, json_option, print_json
from memscope.cli.serving_options import (
    manager_options,
    memory_options,
    request_options,
    scheduler_options,
    token_options,
)
from memscope.cli.sweeping import progress
from memscope.errors import UsageError

if TYPE_CHECKING:
    from memscope.gpus import GpuModel
    from memscope.serving.budget import BudgetInputs
    from memscope.serving.question import ServingPlan, ServingQuestion
    from memscope.serving.requests import RequestTable
    from memscope.serving.result import KvResult


@click.command()
@click.option("--config", required=True, help="The model: its config.json, a folder with one, or a preset.")
@request_options
@memory_options
@token_options
@manager_options
@scheduler_options
@click.option("-j", "--jobs", "n_jobs", type=int, default=1, help="Replays at a time; -1: all cores. [default: 1]")
@json_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write one self-contained offline HTML file.")
@force_option
def serving(as_json: bool, output: Path | None, force: bool, n_jobs: int, **given: Any) -> None:
    """How many requests a GPU could serve, under each way to manage its key/value cache.

    The GPU is shared out between weights and cache, and requests are replayed under several managers; without requests
    only the budget is printed. --list names the managers; an unknown --config the presets.
    """
    from memscope.reports.serving import ServingReport, print_serving, serving_json
    from memscope.serving.question import plan_serving

    plan = plan_serving(_question(given))
    report = ServingReport(plan, tuple(_replayed(plan, n_jobs)))
    if as_json:
        print_json(serving_json(report))
    if output is not None:
        from memscope.reports.serving_html import write_serving_html

        write_serving_html(report, output, overwrite=force)
        click.echo(f"memscope: wrote {output}", err=True)
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
    announce_compilation("kv_serving")
    if any(job.manager == "concat" for job in plan.jobs):
        announce_compilation("kv_tensors")
    with progress("serving") as on_done:
        return run_kv_jobs(plan.jobs, n_jobs, on_done)


def _memory(given: dict[str, Any], gpu: GpuModel) -> BudgetInputs:
    """The device's memory, and what is known or given of its shares."""
    from memscope.serving.budget import BudgetInputs
    from memscope.serving.question import CONTEXT_ESTIMATE

    context = given["context"]
    return BudgetInputs(
        total_bytes=given["capacity"] or gpu.total_bytes,
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
