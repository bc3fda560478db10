"""A verb that is told to end leaves the output as it was, and nothing beside it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from memscope.cli.ending import ending_when_told
from memscope.files import whole_file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
TRACE = Path(__file__).resolve().parents[2] / "traces" / "tiny-llama-train.memscope"
NUMBERS = (signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_verb_that_is_told_to_end_removes_what_is_half_done(tmp_path: Path, number: signal.Signals) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")

    @click.command()
    def write() -> None:
        with whole_file(target, overwrite=True) as file:
            file.write(b"half")
            assert len(list(tmp_path.iterdir())) == 2
            os.kill(os.getpid(), number)
            time.sleep(10)

    before = signal.getsignal(number)
    assert CliRunner().invoke(ending_when_told(write)).exit_code == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert target.read_bytes() == b"old"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_being_imported_is_left_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """A compiled module that is left in the middle of its being made aborts, or goes on without what it lacks."""
    (tmp_path / "slow_to_import.py").write_text(
        f"import os, time\ntry:\n    os.kill(os.getpid(), {int(number)})\n    time.sleep(30)\n"
        "except BaseException as error:\n    print('went on after', repr(error))\n"
    )
    (tmp_path / "run.py").write_text(
        "import click, signal\nfrom memscope.cli.ending import ending_when_told\n"
        "from memscope.files import whole_file\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "@click.command()\ndef load():\n    with whole_file('out') as file:\n        file.write(b'half')\n"
        "        import slow_to_import\n    print('imported')\n"
        "ending_when_told(load)()\n"
    )
    ended = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-number, "", "")
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        @click.command()
        def hang_up() -> None:
            os.kill(os.getpid(), signal.SIGHUP)
            click.echo("went on")

        ended = CliRunner().invoke(ending_when_told(hang_up))
        assert (ended.exit_code, ended.output) == (0, "went on\n")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_an_import_told_to_end_at_any_moment_leaves_nothing_half_done(tmp_path: Path, number: signal.Signals) -> None:
    target = tmp_path / "out.memscope"
    command = [sys.executable, "-m", "memscope", "import", "-f", str(TRACE), "-o", str(target)]
    begin = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    took_s = time.monotonic() - begin
    whole = target.read_bytes()
    rng = random.Random(1)
    codes = set()
    for _ in range(20):
        started = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # which nohup may have the tests ignore
        )
        time.sleep(rng.uniform(0.3, 1.1) * took_s)
        started.send_signal(number)
        _, err = started.communicate(timeout=60)
        codes.add(started.returncode)
        assert "Traceback" not in err
        assert target.read_bytes() == whole
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
    # Before the verb begins and while it imports, while it works, and after its end.
    assert codes <= {-number, 128 + number, 0}
    assert codes != {0}
