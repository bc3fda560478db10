"""``memscope run --emulate``: its options, and starting this program again where PyTorch finds the emulated device."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memscope.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from memscope.emulation.device import EmulatedMachine

Command = TypeVar("Command", bound=Callable[..., Any])
_NAMES = ("devices", "compute_capability", "overhead", "event_latency")
_RENAMED_IN = (2, 9)
"""The PyTorch that renamed ``PYTORCH_CUDA_ALLOC_CONF`` to ``PYTORCH_ALLOC_CONF``."""


@dataclasses.dataclass(frozen=True, slots=True)
class EmulationOptions:
    """The options of ``--emulate``, as given; None where not."""

    devices: int | None
    compute_capability: str | None
    overhead: str | None
    event_latency: int | None

    def require_none(self) -> None:
        """Refuse them where nothing is emulated.

        Raises
        ------
        UsageError
            Naming the first that was given.
        """
        given = next((name for name in _NAMES if getattr(self, name) is not None), None)
        if given is not None:
            raise UsageError(f"--{given.replace('_', '-')} is for --emulate")

    def machine(self, gpu_name: str) -> EmulatedMachine:
        """The devices to emulate.

        Raises
        ------
        UsageError
            If an option cannot be used.
        """
        from memscope.emulation.device import EmulatedMachine, parse_capability
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

    for option in (
        click.option(
            "--event-latency", type=int, default=None, help="Emulate: device calls until an event is complete."
        ),
        click.option("--overhead", default=None, help="Emulate: memory of the CUDA context. [default: the --gpu's]"),
        click.option("--compute-capability", default=None, help="Emulate: such as 8.0. [default: the --gpu's]"),
        click.option("--devices", type=int, default=None, help="Emulate: how many devices. [default: 1]"),
    ):
        collected = option(collected)
    return collected  # type: ignore[return-value]


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
