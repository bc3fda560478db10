"""Serving: a free port, a port in use, a file that cannot be read, and the verb that does it all."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from dash import Dash
from memscope_dashboard.app import _server, _store_of, serve, style_variables
from memscope_dashboard.query import Query

from memscope.errors import InputFileError, UsageError
from memscope.figures.theme import THEMES
from tests.trace.snapshot.snapshots import small


def test_a_port_in_use_is_said_in_words(app: Dash) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen on"):
            _server(app, "127.0.0.1", taken.getsockname()[1])


def test_a_single_file_that_cannot_be_read_ends_before_serving(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="gone"):
        serve([tmp_path / "gone.memscope"], port=0, open_browser=False)


def test_the_snapshots_of_a_single_file_are_traces_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "ranks.pickle"
    path.write_bytes(pickle.dumps({0: small(), 1: small()}))
    store = _store_of([path], None, None)
    assert store.trace_ids == ("ranks.pickle#0", "ranks.pickle#1")
    assert [store.analysis(trace_id).trace.metadata.rank for trace_id in store.trace_ids] == [0, 1]
    query = Query("ranks.pickle#1", 0, 3)
    assert Query.from_search(query.search(), store) == query


@pytest.mark.skipif(os.name == "nt", reason="ends the server by SIGINT")
def test_the_verb_serves_until_interrupted(trace_files: list[Path]) -> None:
    command = [sys.executable, "-m", "memscope", "dash", str(trace_files[0]), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = None
            for line in process.stderr:
                found = re.search(r"http://\S+", line)
                if found:
                    address = found.group()
                    break
            assert address is not None
            with urllib.request.urlopen(address, timeout=20) as response:
                assert "memscope" in response.read().decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            process.stderr.close()
        finally:
            process.kill()


def test_without_a_port_a_taken_usual_one_is_no_failure(app: Dash, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("memscope_dashboard.app.USUAL_PORT", taken.getsockname()[1])
        server = _server(app, "127.0.0.1", None)
        assert server.server_port not in (0, taken.getsockname()[1])
        server.server_close()


def test_the_page_has_the_pictures_colours_of_both_themes() -> None:
    blocks = style_variables().splitlines()
    assert len(blocks) == len(THEMES)
    for theme, block in zip(THEMES.values(), blocks, strict=True):
        assert f'"{theme.name}"' in block
        assert f"--ms-ink:{theme.ink};" in block
        assert all(f"--ms-row-{name}:{color};" in block for name, color in theme.rows.items())
