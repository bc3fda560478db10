"""``memscope run``: a script as it is, recorded, on a GPU, dry or on the emulated device."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from memscope.cli.dash import require_dashboard, serve_traces
from memscope.cli.options import Choice, GroupedCommand, force_option, grouped, say
from memscope.errors import CaptureError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from memscope.capture.environment import CaptureEnvironment
    from memscope.emulation.launch import EmulatedMachine
    from memscope.trace.trace import Trace

Command = TypeVar("Command", bound=Callable[..., Any])
_NAMES = ("devices", "compute_capability", "overhead", "event_latency")
_NOTHING_RECORDED = (
    "memscope: nothing was recorded: the program asked for no memory of a CUDA device in this process (a program that "
    "runs on the CPU, or in processes of its own, leaves no event here)"
)
_RENAMED_IN = (2, 9)
"""The PyTorch that renamed ``PYTORCH_CUDA_ALLOC_CONF`` to ``PYTORCH_ALLOC_CONF``."""


@dataclasses.dataclass(frozen=True, slots=True)
class EmulationOptions:
    """The options of ``--emulate``, as given; None where not."""

    devices: int | None
    compute_capability: str | None
    overhead: str | None
    event_latency: int | None

    def require_none(self, *, but_devices: bool = False) -> None:
        """Refuse them where nothing is emulated; a dry run has devices, too.

        Raises
        ------
        UsageError
            Naming the first that was given.
        """
        names = _NAMES[1:] if but_devices else _NAMES
        given = next((name for name in names if getattr(self, name) is not None), None)
        if given is not None:
            raise UsageError(f"--{given.replace('_', '-')} is for --emulate")

    def machine(self, gpu_name: str) -> EmulatedMachine:
        """The devices to emulate.

        Raises
        ------
        UsageError
            If an option cannot be used.
        """
        from memscope.emulation.launch import EmulatedMachine, parse_capability
        from memscope.gpus import find_gpu
        from memscope.units import parse_bytes

        gpu = find_gpu(gpu_name)
        capability = self.compute_capability
        return EmulatedMachine(
            device_name=gpu.device_name,
            total_bytes=gpu.total_bytes,
            overhead_bytes=gpu.context_bytes if self.overhead is None else parse_bytes(self.overhead),
            capability=gpu.capability if capability is None else parse_capability(capability),
            n_multiprocessors=gpu.n_multiprocessors,
            n_devices=1 if self.devices is None else self.devices,
            event_latency=self.event_latency or 0,
        )


def emulation_options(command: Command) -> Command:
    """The options that only ``--emulate`` has; the command receives them as one argument, ``emulation``."""

    @functools.wraps(command)
    def collected(*args: Any, **kwargs: Any) -> Any:
        options = EmulationOptions(**{name: kwargs.pop(name) for name in _NAMES})
        return command(*args, emulation=options, **kwargs)

    options = grouped(
        "The emulated device",
        click.option("--devices", type=int, default=None, help="How many devices; of a dry run, too. [default: 1]"),
        click.option("--compute-capability", default=None, help="Such as 8.0. [default: the --gpu's]"),
        click.option("--overhead", default=None, help="Memory of the CUDA context. [default: the --gpu's]"),
        click.option("--event-latency", type=int, default=None, help="Device calls until an event is complete."),
    )
    return options(collected)  # type: ignore[return-value]


def enter_emulation(options: EmulationOptions, gpu_name: str, conf: str | None) -> None:
    """Return in a process that runs on the emulated device: this one, started again with the same arguments.

    Raises
    ------
    UsageError
        If an option cannot be used.
    CaptureError
        If the device cannot be built here, or was not loaded.
    """
    from memscope.emulation.launch import MARKER, is_emulated

    machine = options.machine(gpu_name)
    if os.environ.get(MARKER) != str(os.getpid()):
        _start_again(machine, conf)
    if not is_emulated():
        raise CaptureError("the emulated device was not loaded: LD_PRELOAD has no effect on this Python")
    from memscope.emulation.programs import adapt_programs

    adapt_programs()


def _enter_torch(options: EmulationOptions, gpu_name: str) -> None:
    """Return in a process that can import torch: a CUDA build without NVIDIA's libraries gets the stand-ins for them.

    Raises
    ------
    CaptureError
        If torch cannot be imported with them either, or they cannot be built.
    """
    from memscope.emulation.launch import MARKER

    try:
        importlib.import_module("torch")
    except ModuleNotFoundError:
        return  # whoever needs it says so
    except ImportError as error:
        if os.environ.get(MARKER) == str(os.getpid()):
            raise CaptureError(f"torch cannot be imported here: {error}") from error
        try:
            _start_again(options.machine(gpu_name), None)
        except CaptureError as reason:
            raise CaptureError(f"torch cannot be imported here: {error}; {reason}") from error


def _start_again(machine: EmulatedMachine, conf: str | None) -> None:
    """Replace this process by the same command in the emulated environment."""
    from memscope.emulation.build import build_libraries
    from memscope.emulation.launch import MARKER, emulated_environment
    from memscope.emulation.torch_build import find_torch_build

    build = find_torch_build()
    folder = build_libraries(build, lambda text: click.echo(f"memscope: {text}", err=True))
    environment = emulated_environment(machine, folder, os.environ)
    environment[MARKER] = str(os.getpid())  # kept by exec: a memscope that the program starts has another
    if conf is not None:
        release = re.match(r"(\d+)\.(\d+)", build.version)
        is_renamed = release is None or (int(release[1]), int(release[2])) >= _RENAMED_IN
        environment.pop("PYTORCH_ALLOC_CONF", None)
        environment.pop("PYTORCH_CUDA_ALLOC_CONF", None)
        environment["PYTORCH_ALLOC_CONF" if is_renamed else "PYTORCH_CUDA_ALLOC_CONF"] = conf
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", "memscope", *sys.argv[1:]]
    os.execve(sys.executable, command, environment)  # noqa: S606


_SUFFIX = ".memscope"


class _RunCommand(GroupedCommand):
    """A command whose options end with the program's name, a script's or a module's: what follows is the program's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Have the parser take nothing that follows ``-m MODULE``, as ``python -m`` does."""
        return super().parse_args(ctx, self._ending_with_module(ctx, args))

    def _ending_with_module(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {
            name: not parameter.is_flag and parameter.nargs == 1
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            for name in parameter.opts
        }
        place = 0
        while place < len(args) and args[place].startswith("-") and args[place] != "--":
            name, is_joined, _ = args[place].partition("=")
            is_module = name.startswith("-m") and not name.startswith("--")
            place += 1 + (name == "-m" or (takes_value.get(name, False) and not is_joined))
            if is_module:
                rest = args[place:]
                return args if rest[:1] == ["--"] else [*args[:place], "--", *rest]
        return args


@click.command(cls=_RunCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@grouped(
    "What is recorded",
    click.option("-m", "module", default=None, help="Run a module, as python -m does."),
    click.option(
        "--stacks",
        type=Choice(["python", "all", "none"]),
        default="python",
        show_default=True,
        help="Stacks to record; all adds PyTorch's C++ frames, and costs more.",
    ),
    click.option("--no-stacks", "stacks", flag_value="none", help="The same as --stacks none."),
)
@grouped(
    "Without a GPU",
    click.option("--dry-run", is_flag=True, help="Run on tensors without memory, on a simulated device."),
    click.option(
        "--world-size", type=int, default=None, metavar="N", help="Dry-run N ranks, one after the other, a file each."
    ),
    click.option("--rank", type=int, default=None, metavar="R", help="Of these, rank R alone."),
    click.option("--emulate", is_flag=True, help="Run PyTorch's CUDA build on an emulated device; see above."),
    click.option("--no-gpu", is_flag=True, help="The truer of the two that this machine has: --emulate, or --dry-run."),
    click.option("--gpu", default=None, help="The device, by name or size. [default: H100-80GB]"),
    click.option("--conf", default=None, help="PYTORCH_ALLOC_CONF. [default: the environment's]"),
)
@emulation_options
@grouped(
    "Output",
    click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write. [default: SCRIPT.memscope]"),
    force_option,
    click.option("--dash", "opens_dashboard", is_flag=True, help="Open the dashboard on the recording at its end."),
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
@click.pass_context
def run(
    ctx: click.Context,
    output: Path | None,
    force: bool,
    dry_run: bool,
    emulate: bool,
    no_gpu: bool,
    gpu: str | None,
    conf: str | None,
    world_size: int | None,
    rank: int | None,
    emulation: EmulationOptions,
    stacks: Literal["python", "all", "none"],
    opens_dashboard: bool,
    module: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Record a script, unchanged; its own options follow its name.

    The script's output and exit code are its own. However it ends, the trace is kept.

    --world-size 8 dry-runs each of eight ranks by itself, with the environment that torchrun would give it. What
    other ranks would send counts as what this one has. Nodes have eight devices, or as many as divide the ranks evenly.

    Under a launcher each rank writes a file with its rank in the name. MEMSCOPE_OUT names the file or a folder,
    MEMSCOPE_RANKS=0,3-5 the ranks that record; with MEMSCOPE_TRIGGER=signal, kill -USR2 starts and ends a recording.

    \b
    --emulate needs Linux on x86-64, a CUDA build of torch and, at first use,
    a C compiler. PyTorch's own allocator decides everything; nothing is computed:
      - values are garbage but for masks, positions and what else is made of the
        host's whole numbers: a script that reads others back gets zeros, and
        branches accordingly (generate() ends by its length all the same);
      - torch.compile and Triton's kernels need Triton, else a model runs eagerly;
      - collectives do not work;
      - cuDNN is switched off: convolutions take PyTorch's own kernels.
    """  # noqa: D301  click knows the character, not the letters
    if module is None and not arguments:
        raise UsageError("nothing to run: name a script, or a module with -m")
    if module is None and arguments[0].startswith("-"):
        raise click.NoSuchOption(arguments[0].partition("=")[0], ctx=ctx)
    has_ranks = world_size is not None or rank is not None
    if no_gpu:
        dry_run, emulate = _way_without_gpu(dry_run=dry_run, emulate=emulate, has_ranks=has_ranks)
    _check_device_options(emulation, gpu, conf, is_dry_run=dry_run, is_emulated=emulate, has_ranks=has_ranks)
    from memscope.capture.dry_run.distributed.ranks import refuse_launcher
    from memscope.capture.environment import rank_path, read_environment

    target, script_arguments = (module, arguments) if module is not None else (arguments[0], arguments[1:])
    if dry_run:
        refuse_launcher(target)
    default = Path(f"{target if module is not None else Path(target).stem}{_SUFFIX}")
    if has_ranks:
        _enter_ranks(ctx, world_size, rank, output or default, force=force, opens_dashboard=opens_dashboard)
    environment = read_environment()
    is_triggered = environment.trigger is not None
    path = environment.output_path(default) if output is None else rank_path(output, environment.rank)
    if opens_dashboard:
        _require_one_recording(environment)
    recording = path.absolute()  # the script may go to another folder
    if environment.records_here and not is_triggered:
        _require_free(path, force=force)
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder: make it first")
    from memscope.gpus import DEFAULT_GPU

    if emulate:
        enter_emulation(emulation, gpu or DEFAULT_GPU, conf)
    if dry_run:
        _enter_torch(emulation, gpu or DEFAULT_GPU)
    from memscope.capture.recorder import Recorder
    from memscope.capture.script import run_recorded, run_triggered
    from memscope.capture.trigger import SignalTrigger, always_ready, cuda_is_ready

    def recorder_into(file: Path) -> Recorder:
        return Recorder(
            file,
            backend="dry-run" if dry_run else "cuda" if emulate else "auto",
            gpu=gpu or DEFAULT_GPU,
            conf=None if emulate else conf,
            n_devices=emulation.devices or 1,
            stacks=None if stacks == "none" else stacks,
            overwrite=True,
            environment=replace(environment, out=None),
        )

    if is_triggered and environment.records_here:
        trigger = SignalTrigger(recorder_into, path, is_ready=always_ready if dry_run else cuda_is_ready)
        click.echo(f"memscope: kill -USR2 {os.getpid()} starts a recording, and again ends it", err=True)
        ctx.exit(run_triggered(trigger, target, script_arguments, is_module=module is not None))
    code = run_recorded(recorder := recorder_into(path), target, script_arguments, is_module=module is not None)
    sys.stdout.flush()
    if recorder.records_here:
        code = _said(recorder.trace, path, code)
        if opens_dashboard:
            _open_dashboard(recording)
    ctx.exit(code)


def _enter_ranks(
    ctx: click.Context, world_size: int | None, rank: int | None, path: Path, *, force: bool, opens_dashboard: bool
) -> None:
    """Return in the process of one rank; where all are asked for, run each in a process of its own and leave."""
    from memscope.capture.dry_run.distributed.ranks import SimulatedRank, is_simulated, run_each
    from memscope.capture.environment import rank_path, read_environment

    if is_simulated():
        return
    environment = read_environment()
    if world_size is None:
        raise UsageError("--rank is one of the ranks of --world-size: give both")
    if environment.world_size is not None or environment.rank is not None:
        raise UsageError("RANK and WORLD_SIZE are set: a launcher has started this rank, leave --world-size out")
    one = SimulatedRank(0 if rank is None else rank, world_size)
    if rank is not None:
        os.environ.update(one.environment())
        return
    environment = replace(environment, world_size=world_size)
    if opens_dashboard:
        _require_one_recording(environment)
    ranks = [each for each in range(world_size) if replace(environment, rank=each).records_here]
    paths = [rank_path(path if environment.out is None else environment.output_path(path), each) for each in ranks]
    for each in paths:
        _require_free(each, force=force)
    code = run_each(ranks, world_size, sys.argv[1:])
    if not code and len(paths) > 1:
        say(f"memscope: memscope report {paths[0]} {paths[1]} … shows ranks side by side")
    ctx.exit(code)


def _require_one_recording(environment: CaptureEnvironment) -> None:
    """Raise where not exactly one recording is made, which the dashboard could be opened on, or there is none."""
    require_dashboard()
    if environment.trigger is not None:
        raise UsageError(
            "--dash opens one recording, and MEMSCOPE_TRIGGER may make several: use memscope dash afterwards"
        )
    if (environment.world_size or 1) > 1:
        raise UsageError("--dash opens one recording, and each rank makes its own: use memscope dash on all of them")


def _open_dashboard(path: Path) -> None:
    """Serve the dashboard until it is interrupted, whatever the script made of Ctrl+C."""
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


def _way_without_gpu(*, dry_run: bool, emulate: bool, has_ranks: bool) -> tuple[bool, bool]:
    """Whether ``--no-gpu`` means a dry run, and whether it means the emulated device; what was chosen is said.

    Ranks can only be dry-run.

    Raises
    ------
    UsageError
        If one of the two was chosen already.
    """
    from memscope.emulation.build import build_libraries
    from memscope.emulation.launch import MARKER
    from memscope.emulation.torch_build import find_torch_build
    from memscope.errors import MemscopeError

    if dry_run or emulate:
        raise UsageError("--no-gpu chooses between --dry-run and --emulate: give it alone")
    if has_ranks:
        return True, False
    if os.environ.get(MARKER) == str(os.getpid()):
        return False, True
    try:
        build = find_torch_build()
        build_libraries(build, lambda text: click.echo(f"memscope: {text}", err=True))
    except MissingDependencyError:
        raise
    except MemscopeError as error:
        say(f"memscope: a dry run, for there is no emulated device here: {error}")
        return True, False
    click.echo(f"memscope: on the emulated device, under torch {build.version}", err=True)
    return False, True


def _check_device_options(
    emulation: EmulationOptions,
    gpu: str | None,
    conf: str | None,
    *,
    is_dry_run: bool,
    is_emulated: bool,
    has_ranks: bool,
) -> None:
    """Raise where options that do not go together are given."""
    if has_ranks and not is_dry_run:
        raise UsageError(
            "--world-size and --rank are for --dry-run: with GPUs, a launcher such as torchrun starts ranks"
        )
    if is_dry_run and is_emulated:
        raise UsageError("--dry-run and --emulate are two ways without a GPU: choose one")
    if not is_emulated:
        emulation.require_none(but_devices=is_dry_run)
    if not (is_dry_run or is_emulated) and (gpu is not None or conf is not None):
        raise UsageError("--gpu and --conf are for --dry-run and --emulate; on a GPU, set PYTORCH_ALLOC_CONF")


def _said(trace: Trace, path: Path, code: int) -> int:
    """Say what was recorded; the exit code, which is none of success where that is nothing."""
    say(f"memscope: wrote {path} ({_summary(trace)})")
    if trace.n_events:
        return code
    say(_NOTHING_RECORDED)
    return code or 1


def _summary(trace: Trace) -> str:
    from memscope.trace.schema import Action
    from memscope.units import format_count

    n_ooms = int((trace.action == Action.OOM).sum())
    ended = f", {n_ooms} out of memory" if n_ooms else ""
    return f"{format_count(trace.n_events)} events{ended}, {trace.metadata.origin}{_values_words(trace)}"


def _values_words(trace: Trace) -> str:
    n_read = trace.metadata.extra.get("emulated_values_read_back", 0)
    return f": the {n_read:,} times that it read values back it got zeros" if n_read else ""
