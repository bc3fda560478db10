"""``memscope demo``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from memscope.cli.dash import require_dashboard
from memscope.errors import InputFileError, MemscopeError

GPU = "H100-80GB"
_WORKLOADS = (
    ("llama3-8b-train", "train_llama.py", "two AdamW training steps of a Llama-3-8B-shaped model, random weights"),
    ("gpt2-generate", "generate_gpt2.py", "a GPT-2-sized model generating text, its KV cache growing"),
)


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("memscope-demo"),
    show_default=True,
    help="Folder for the traces and reports.",
)
@click.option("--serve/--no-serve", default=True, show_default=True, help="Open the dashboard at the end.")
@click.option("--port", type=click.IntRange(0, 65535), default=8050, show_default=True, help="The dashboard's port.")
def demo(output: Path, serve: bool, port: int) -> None:
    """Record real LLM training and generation without a GPU, then report, verify, replay and show them.

    Every step is a memscope command; it is printed before it runs, so that it can be tried on a script of one's own.
    """
    require_dashboard()
    examples = examples_folder()
    output.mkdir(parents=True, exist_ok=True)
    traces = []
    for name, script, what in _WORKLOADS:
        trace = output / f"{name}.memscope"
        _heading(f"Record {what}")
        _memscope("run", "--dry-run", "--gpu", GPU, "-f", "-o", str(trace), str(examples / script))
        traces.append(trace)
    for trace in traces:
        _heading(f"Where the memory goes: {trace.name}")
        _memscope("report", str(trace))
        _heading("Is the simulator right about this trace?")
        _memscope("verify", str(trace))
        _heading("What other allocators would have done")
        _memscope("replay", str(trace))
    _heading("What the generation's key/value cache held, and what growing by copying cost")
    _memscope("kv", str(traces[-1]))
    _heading("How many requests would a GPU serve, under each way to manage that cache?")
    _memscope("serving", "--config", "llama-3-8b", "--gpu", GPU, "--generate", "1000", "--rate", "40")
    _heading("The same as one self-contained page each")
    for trace in traces:
        _memscope("report", str(trace), "-f", "-o", str(trace.with_suffix(".html")))
    if serve:
        _heading("The dashboard (Ctrl-C ends it)")
        _memscope("dash", "--port", str(port), *map(str, traces))
    else:
        click.echo()
        click.echo(f"The dashboard: memscope dash {' '.join(map(str, traces))}")


def examples_folder() -> Path:
    """Folder of the example scripts: beside the package in a checkout, inside it when installed.

    Raises
    ------
    InputFileError
        If neither is there.
    """
    package = Path(__file__).parents[1]
    for folder in (package.parent / "examples", package / "examples"):
        if (folder / _WORKLOADS[0][1]).is_file():
            return folder
    raise InputFileError(package / "examples", "the example scripts are not part of this installation")


def _heading(text: str) -> None:
    click.echo()
    click.secho(f"── {text}", bold=True)


def _memscope(*arguments: str) -> None:
    """Run one memscope command as a user would, in a process of its own."""
    click.secho(f"$ memscope {' '.join(_relative(argument) for argument in arguments)}", dim=True)
    sys.stdout.flush()
    code = subprocess.call([sys.executable, "-m", "memscope", *arguments])  # noqa: S603
    if code:
        raise MemscopeError(f"memscope {arguments[0]} ended with exit code {code}")


def _relative(argument: str) -> str:
    """A path as the user would type it."""
    path = Path(argument)
    return os.path.relpath(path) if path.is_absolute() else argument
