"""``memscope kv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from memscope.cli.kv_options import kv_options
from memscope.cli.options import announce_compilation, console, print_json
from memscope.cli.sweeping import progress
from memscope.errors import UsageError

if TYPE_CHECKING:
    from memscope.capture.gpus import GpuModel
    from memscope.kv.budget import BudgetInputs
    from memscope.kv.parameters import Parameters
    from memscope.kv.requests import RequestTable
    from memscope.reports.kv import KvReport

DEFAULT_MAX_LENGTH = 4096
DEFAULT_BLOCK_SIZE = 16


@click.command()
@kv_options
def kv(as_json: bool, n_jobs: int, **given: Any) -> None:
    """Share out a GPU between weights and key/value cache, and replay requests under several ways to manage it.

    Without requests only the budget is printed. --list names the managers; an unknown --config names the presets.
    """
    from memscope.reports.kv import kv_json, print_kv

    report = _report(given, n_jobs)
    if as_json:
        print_json(kv_json(report))
    else:
        print_kv(report, console())


def _report(given: dict[str, Any], n_jobs: int) -> KvReport:
    """Do what the options say."""
    from memscope.capture.gpus import DEFAULT_GPU, find_gpu
    from memscope.kv.budget import make_budget
    from memscope.kv.config_file import read_model_config
    from memscope.kv.managers import ManagerOptions
    from memscope.kv.scheduler import SchedulerOptions
    from memscope.kv.shapes import KvShape
    from memscope.kv.simulate import KvJob
    from memscope.kv.speeds import make_cost_model, peaks_of
    from memscope.kv.sweep import kv_jobs, run_kv_jobs
    from memscope.reports.kv import KvReport

    scheduler = SchedulerOptions(
        policy=given["policy"],
        max_requests=given["max_requests"],
        max_step_tokens=given["max_step_tokens"],
        preemption=given["preemption"],
        swap_bytes=given["swap_space"] or 0,
    )
    config = read_model_config(given["config"])
    gpu = find_gpu(given["gpu_name"] or DEFAULT_GPU)
    shape = KvShape(config.kv_layers(), given["kv_dtype"], given["tensor_parallel"])
    parameters = _parameters(given, config)
    budget = make_budget(config, shape, parameters, _budget_inputs(given, gpu, scheduler))
    max_length = given["max_length"] or config.max_length or DEFAULT_MAX_LENGTH
    block_sizes = given["block_sizes"]
    options = ManagerOptions((block_sizes or (DEFAULT_BLOCK_SIZE,))[0], given["page_size"], max_length)
    requests, cost, results = _requests(given), None, []
    if requests is not None:
        weight_bytes = next((row.bytes for row in budget.rows if row.name == "weights"), None)
        if weight_bytes is None:
            weight_bytes = given["weight_bytes"]
        if weight_bytes is None:
            weight_bytes = _counted(parameters, given)
        peaks = peaks_of(gpu.name, given["tflops"], given["bandwidth"])
        cost = make_cost_model(config, parameters, weight_bytes, peaks, shape.tensor_parallel)
        template = KvJob(shape, requests, budget.kv_bytes, "paged", options, scheduler, cost)
        jobs = kv_jobs(template, given["managers"], block_sizes)
        announce_compilation("kv_serving")
        if "concat" in given["managers"]:
            announce_compilation("kv_tensors")
        with progress("serving") as on_done:
            results = run_kv_jobs(jobs, n_jobs, on_done)
    return KvReport(
        config, shape, gpu.name, budget, max_length, options.block_size, requests, scheduler, cost, tuple(results)
    )


def _parameters(given: dict[str, Any], config: Any) -> Parameters | None:
    """The model's parameters; None where they are not known and not needed."""
    from memscope.kv.parameters import count_parameters

    try:
        return count_parameters(config)
    except UsageError:
        if given["weight_bytes"] is None:
            raise
        return None


def _counted(parameters: Parameters | None, given: dict[str, Any]) -> int:
    if parameters is None:
        raise UsageError("the weights' bytes are not known: give --weight-bytes")
    return parameters.bytes_per_gpu(given["weights"], given["tensor_parallel"])


def _budget_inputs(given: dict[str, Any], gpu: GpuModel, scheduler: Any) -> BudgetInputs:
    from memscope.kv.budget import BudgetInputs

    context = given["context"]
    return BudgetInputs(
        total_bytes=given["capacity"] or gpu.total_bytes,
        utilisation_frac=given["utilisation"],
        context_bytes=gpu.context_bytes if context is None else context,
        context_source="estimate: the CUDA context and kernels" if context is None else "given",
        weight_format=given["weights"],
        weight_bytes=given["weight_bytes"],
        n_step_tokens=scheduler.max_step_tokens,
        n_step_requests=scheduler.max_requests,
        activation_bytes=given["activations"],
        cuda_graph_bytes=given["cuda_graphs"],
        kv_bytes=given["kv_memory"],
    )


def _requests(given: dict[str, Any]) -> RequestTable | None:
    """The requests to replay, read or made."""
    from memscope.kv.request_files import read_requests
    from memscope.kv.request_generator import GeneratorOptions, generate_requests

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
    return requests.faster(given["speed_up"]) if given["speed_up"] != 1 else requests
