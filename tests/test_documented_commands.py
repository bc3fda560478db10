"""Every command that the README and docs/ show does what it is shown to do: it is run, on files of the names in it.

What needs a GPU, a server or minutes is in a table with the reason, and its options exist. Commands that stand in the
middle of a sentence are parts of commands: their verbs and options exist.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from memscope.analysis import load
from memscope.cli.main import VERBS, cli
from memscope.trace.container import write_container
from memscope.trace.snapshot.write import write_snapshot
from tests.conftest import Outcome
from tests.rank_traces import rank_trace, training

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TRACES = ROOT / "traces"
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(memscope [^`]+)`")
ROW = re.compile(r"^\|.*\| `(memscope [^`]+)` \|$", re.MULTILINE)

NOT_RUN = {
    "memscope dash": "a server, which does not end",
    "memscope run --emulate": "needs a CUDA build of torch; the emulated tests run it",
    "memscope run train.py": "needs a GPU",
    "torchrun": "needs several GPUs",
    "MEMSCOPE_TRIGGER=signal": "needs a GPU, and a signal from outside",
}
"""Commands by how they begin, and why they are not run here."""
SLOW = {
    "memscope estimate": "builds and dry-runs models of billions of parameters",
    "memscope run --dry-run": "imports torch, and some runs a program as one rank of 64",
}
EXIT_CODES = {"memscope check": (0, 2)}
"""Where it is not 0 alone: a budget may be passed."""
INPUTS = {
    "memscope kv": {"run.memscope": "generate.memscope"},
    "memscope diff run.memscope --steps": {"run.memscope": "long.memscope"},
    "memscope slice run.memscope --steps": {"run.memscope": "long.memscope"},
    "memscope import": {"snapshot.memscope": None},
    "memscope redact": {"to-share.memscope": None},
}
"""What a file is here for commands that begin so; None: it is not there yet."""

TRAIN = """
import sys
import torch

model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)).cuda()
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    model(torch.randn(4, 64, device="cuda")).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
print("trained with", sys.argv[1:])
"""
CHECKS = """
[[check]]
trace = "run.memscope"
max_peak = "24GB"
baseline = "base.json"
"""
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


class Shown(NamedTuple):
    """A command, where it is shown."""

    document: str
    line: str

    @property
    def words(self) -> list[str]:
        """The words of it behind ``memscope``; what stands before that, such as a launcher, is left out."""
        words = shlex.split(self.line)
        return words[words.index("memscope") + 1 :]

    def named_in(self, table: dict[str, str]) -> str | None:
        """What a table says of commands that begin as this one does."""
        return next((text for start, text in table.items() if self.line.startswith(start)), None)


def shown() -> Iterator[Shown]:
    """Whole commands: lines of code, and the right column of a table."""
    for document in DOCUMENTS:
        text = document.read_text()
        lines = [line.strip() for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        for line in (*lines, *ROW.findall(BLOCK.sub("", text))):
            if re.match(r"(\w+=\w+ |torchrun .*)?memscope ", line):
                yield Shown(document.name, re.sub(r"\s+#.*", "", line))


def spans() -> Iterator[Shown]:
    """Parts of commands within sentences."""
    for document in DOCUMENTS:
        text = ROW.sub("", BLOCK.sub("", document.read_text()))
        for words in SPAN.findall(text):
            yield Shown(document.name, " ".join(words.split()))


COMMANDS = list(dict.fromkeys(shown()))
SPANS = list(dict.fromkeys(spans()))


def name(command: Shown) -> str:
    return f"{command.document}: {command.line}"


def with_marks(commands: list[Shown]) -> list[object]:
    """Each as a parameter; the slow ones are run with the other slow tests."""
    return [pytest.param(one, id=name(one), marks=[pytest.mark.slow] if one.named_in(SLOW) else []) for one in commands]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of every name that is shown, made of the traces of the project."""
    folder = tmp_path_factory.mktemp("made")
    for trace in ("run", "run1", "run2", "run3", "before", "snapshot"):
        shutil.copy(TRACES / "tiny-llama-train.memscope", folder / f"{trace}.memscope")
    for trace in ("after", "generate"):
        shutil.copy(TRACES / "tiny-gpt2-generate.memscope", folder / f"{trace}.memscope")
    failed = load(TRACES / "tiny-out-of-memory.memscope").trace
    write_snapshot(failed, folder / "snapshot.pickle")
    write_container(failed, folder / "train-oom-pid4711.memscope")
    long = rank_trace(training(*range(10, 22)))
    write_container(long, folder / "long.memscope")
    for rank in range(3):
        write_container(rank_trace(training(10, 20 + rank)), folder / f"train-rank{rank}.memscope")
    (folder / "train.py").write_text(TRAIN)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "checks.toml").write_text(CHECKS)
    (folder / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,100,20\n0.5,300,40\n1,50,10\n")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, memscope: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to run one command in."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert memscope("baseline", "run1.memscope", "run2.memscope", "-o", "base.json").code == 0
    return tmp_path


def prepare(command: Shown, folder: Path) -> None:
    """Give the files the content that the command is about, and take away what it writes."""
    for start, files in INPUTS.items():
        if command.line.startswith(start):
            for target, source in files.items():
                (folder / target).unlink(missing_ok=True)
                if source is not None:
                    shutil.copy(folder / source, folder / target)
    words = command.words
    for option in ("-o", "--junit"):
        if option in words:
            (folder / words[words.index(option) + 1]).unlink(missing_ok=True)


def expanded(words: list[str], folder: Path) -> list[str]:
    """What the shell makes of names with a star."""
    found = []
    for word in words:
        matches = sorted(path.name for path in folder.glob(word)) if "*" in word and "/" not in word else []
        found += matches or [word]
    return found


@pytest.mark.parametrize("command", with_marks([one for one in COMMANDS if not one.named_in(NOT_RUN)]))
def test_a_command_shown_does_what_it_says(command: Shown, folder: Path, memscope: Callable[..., Outcome]) -> None:
    prepare(command, folder)
    outcome = memscope(*expanded(command.words, folder))
    codes = next((codes for start, codes in EXIT_CODES.items() if command.line.startswith(start)), (0,))
    assert outcome.code in codes, outcome.err
    words = command.words
    if "-o" in words:
        assert (folder / words[words.index("-o") + 1]).stat().st_size > 0
    else:
        assert outcome.out or outcome.err


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_the_options_of_a_command_shown_exist(command: Shown) -> None:
    verb, *words = command.words
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    found.make_context(verb, words)


@pytest.mark.parametrize("span", SPANS, ids=name)
def test_a_part_of_a_command_names_what_exists(span: Shown) -> None:
    verb, *words = span.words
    assert verb in VERBS
    found = cli.get_command(click.Context(cli), verb)
    assert found is not None
    options = {text for parameter in found.params for text in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options


def test_what_is_not_run_is_shown_somewhere() -> None:
    for start in (*NOT_RUN, *SLOW, *EXIT_CODES, *INPUTS):
        assert any(one.line.startswith(start) for one in COMMANDS), start
    assert len(COMMANDS) > 40
    assert len(SPANS) > 15
