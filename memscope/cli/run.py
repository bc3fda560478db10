"""``memscope run``."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from memscope.cli.emulating import EmulationOptions, emulation_options, enter_emulation
from memscope.cli.options import announce_compilation, force_option
from memscope.errors import UsageError

if TYPE_CHECKING:
    from memscope.capture.environment import CaptureEnvironment
    from memscope.trace.trace import Trace

_SUFFIX = ".memscope"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write. [default: SCRIPT.memscope]")
@force_option
@click.option("--dry-run", is_flag=True, help="Run on tensors without memory, on a simulated device. Needs no GPU.")
@click.option(
    "--emulate", is_flag=True, help="Run PyTorch's CUDA build on an emulated device. Needs no GPU; see below."
)
@click.option("--gpu", default=None, help="Dry run, emulate: the device, by name or size. [default: H100-80GB]")
@click.option("--conf", default=None, help="Dry run, emulate: PYTORCH_ALLOC_CONF. [default: the environment's]")
@emulation_options
@click.option(
    "--stacks",
    type=click.Choice(["python", "all", "none"]),
    default="python",
    show_default=True,
    help="Stacks to record; all adds PyTorch's C++ frames, and costs more.",
)
@click.option("--no-stacks", "stacks", flag_value="none", help="The same as --stacks none.")
@click.option("--dash", "opens_dashboard", is_flag=True, help="Open the dashboard on the recording when it has ended.")
@click.option("-m", "module", default=None, help="Run a module, as python -m does.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
@click.pass_context
def run(
    ctx: click.Context,
    output: Path | None,
    force: bool,
    dry_run: bool,
    emulate: bool,
    gpu: str | None,
    conf: str | None,
    emulation: EmulationOptions,
    stacks: Literal["python", "all", "none"],
    opens_dashboard: bool,
    module: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Record a script, unchanged; its own options follow its name.

    The script's output and exit code are its own. However it ends, the trace is kept.

    Under a launcher each rank writes a file with its rank in the name. MEMSCOPE_OUT names the file or a folder,
    MEMSCOPE_RANKS=0,3-5 the ranks that record; with MEMSCOPE_TRIGGER=signal, kill -USR2 starts and ends a recording.

    \b
    --emulate needs Linux on x86-64, a CUDA build of torch and, at first use,
    a C compiler. PyTorch's own allocator decides everything; nothing is computed:
      - values are garbage: a script that reads some back gets zeros, and branches
        accordingly (Hugging Face generate() ends by its length all the same);
      - Triton kernels, torch.compile and collectives do not work;
      - cuDNN is switched off: convolutions take PyTorch's own kernels.
    """  # noqa: D301  click knows the character, not the letters
    if module is None and not arguments:
        raise UsageError("nothing to run: name a script, or a module with -m")
    _check_device_options(emulation, gpu, conf, is_dry_run=dry_run, is_emulated=emulate)
    target, script_arguments = (module, arguments) if module is not None else (arguments[0], arguments[1:])
    from memscope.capture.environment import rank_path, read_environment

    environment = read_environment()
    default = Path(f"{target if module is not None else Path(target).stem}{_SUFFIX}")
    path = environment.output_path(default) if output is None else rank_path(output, environment.rank)
    is_triggered = environment.trigger is not None
    if opens_dashboard:
        _require_one_recording(environment)
    recording = path.absolute()  # the script may go to another folder
    if environment.records_here and not is_triggered:
        _require_free(path, force=force)
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder: make it first")
    from memscope.gpus import DEFAULT_GPU

    if dry_run:
        announce_compilation()
    if emulate:
        enter_emulation(emulation, gpu or DEFAULT_GPU, conf)
    from memscope.capture.recorder import Recorder
    from memscope.capture.script import run_recorded, run_triggered
    from memscope.capture.trigger import SignalTrigger, always_ready, cuda_is_ready

    def recorder_into(file: Path) -> Recorder:
        return Recorder(
            file,
            backend="dry-run" if dry_run else "cuda" if emulate else "auto",
            gpu=gpu or DEFAULT_GPU,
            conf=None if emulate else conf,
            stacks=None if stacks == "none" else stacks,
            overwrite=True,
            environment=replace(environment, out=None),
        )

    if is_triggered and environment.records_here:
        trigger = SignalTrigger(recorder_into, path, is_ready=always_ready if dry_run else cuda_is_ready)
        click.echo(f"memscope: kill -USR2 {os.getpid()} starts a recording, and again ends it", err=True)
        ctx.exit(run_triggered(trigger, target, script_arguments, is_module=module is not None))
    recorder = recorder_into(path)
    code = run_recorded(recorder, target, script_arguments, is_module=module is not None)
    sys.stdout.flush()
    if recorder.records_here:
        click.echo(f"memscope: wrote {path} ({_summary(recorder.trace)})", err=True)
        if opens_dashboard:
            _open_dashboard(recording)
    ctx.exit(code)


def _require_one_recording(environment: CaptureEnvironment) -> None:
    """Raise where not exactly one recording is made, which the dashboard could be opened on."""
    if environment.trigger is not None:
        raise UsageError(
            "--dash opens one recording, and MEMSCOPE_TRIGGER may make several: use memscope dash afterwards"
        )
    if (environment.world_size or 1) > 1:
        raise UsageError("--dash opens one recording, and each rank makes its own: use memscope dash on all of them")


def _open_dashboard(path: Path) -> None:
    """Serve the dashboard until it is interrupted, whatever the script made of Ctrl+C."""
    from memscope.cli.dash import serve_traces

    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve_traces([path], open_browser=sys.stdout.isatty())


def _require_free(path: Path, *, force: bool) -> None:
    """Raise if a recording to a path would lose what is there."""
    from memscope.trace.recording.folder import cut_off_message

    if force:
        return
    if path.exists():
        raise UsageError(f"{path} exists already: choose another name with -o, or overwrite it with -f")
    cut_off = cut_off_message(path)
    if cut_off is not None:
        raise UsageError(f"{cut_off}, or overwrite it with -f")


def _check_device_options(
    emulation: EmulationOptions, gpu: str | None, conf: str | None, *, is_dry_run: bool, is_emulated: bool
) -> None:
    """Raise where options that do not go together are given."""
    if is_dry_run and is_emulated:
        raise UsageError("--dry-run and --emulate are two ways without a GPU: choose one")
    if not is_emulated:
        emulation.require_none()
    if not (is_dry_run or is_emulated) and (gpu is not None or conf is not None):
        raise UsageError("--gpu and --conf are for --dry-run and --emulate; on a GPU, set PYTORCH_ALLOC_CONF")


def _summary(trace: Trace) -> str:
    from memscope.trace.schema import Action
    from memscope.units import format_count

    n_ooms = int((trace.action == Action.OOM).sum())
    ended = f", {n_ooms} out of memory" if n_ooms else ""
    return f"{format_count(trace.n_events)} events{ended}, {trace.metadata.origin}{_values_words(trace)}"


def _values_words(trace: Trace) -> str:
    n_read = trace.metadata.extra.get("emulated_values_read_back", 0)
    return f": the {n_read:,} times that it read values back it got zeros" if n_read else ""
