"""A served dashboard that is asked thousands of things: its memory stays where it was, and its work ends with it."""

from __future__ import annotations

import http.client
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dash import Dash
from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore

from memscope.trace.container import write_container
from tests.dashboard.pages import request_of
from tests.naive_layout import random_layout

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TRACES = sorted((Path(__file__).resolve().parents[2] / "traces").glob("*.memscope"))
N_CLIENTS = 10
N_REQUESTS = 2000
MIB = 1 << 20
FREE_GROWTH_BYTES = 24 * MIB
"""A server that keeps one page's answer of each request grows by hundreds."""


@dataclass(frozen=True)
class Served:
    """The dashboard in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    said: Path

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kib,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        return 1024 * int(kib)


@contextmanager
def served(folder: Path, traces: list[Path]) -> Iterator[Served]:
    command = [sys.executable, "-m", "memscope", "dash", "--no-open", "--port", "0", *map(str, traces)]
    said = folder / "said.txt"
    with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            yield Served(process, _port_of(process, said), said)
        finally:
            process.kill()


def _port_of(process: subprocess.Popen[bytes], said: Path) -> int:
    while process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", said.read_text())
        if found is not None:
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(said.read_text())


class Client:
    """Somebody who looks at every view of every trace, at one moment after the other, and changes every control."""

    def __init__(self, store: TraceStore, app: Dash, seed: int) -> None:
        self._app = app
        self._rng = random.Random(seed)
        self._views = sorted({key for key in app.callback_map if "-title.children" in key})
        self._pages = ("/", "/timeline", "/_dash-layout", "/_dash-dependencies", "/assets/canvas/1_columns.js")
        self._devices = [
            (name, device.index, device.n_events) for name in store.trace_ids for device in store.open(name).devices
        ]

    def next(self) -> tuple[str, str, Any]:
        """Method, path and body of what is asked now."""
        rng = self._rng
        trace, device, n_events = rng.choice(self._devices)
        kind = rng.random()
        if kind < 0.05:
            return "GET", rng.choice(self._pages), None
        if kind < 0.25:
            low, high = sorted(rng.randrange(n_events + 1) for _ in range(2))
            what = rng.choice(("run", "segments", "allocations", "series"))
            return "GET", f"/canvas/{what}?trace={quote(trace)}&device={device}&low={low}&high={high}", None
        subject = {"trace": trace, "device": device}
        moment = subject | {"event": rng.randrange(-1, n_events)}
        values = {"moment.data": moment, "subject.data": subject} | self._controls(subject)
        output = rng.choice(self._views).strip(".").split("...")[0]
        return "POST", "/_dash-update-component", request_of(self._app, output, values)

    def _controls(self, subject: dict[str, Any]) -> dict[str, Any]:
        rng = self._rng
        word = "".join(rng.choices("abcdefghij", k=6))
        low, high = sorted(rng.uniform(0, 1000) for _ in range(2))
        values: dict[str, Any] = {"scheme.data": rng.choice(("dark", "light")), "allocations-search.value": word}
        for view in ("timeline", "fragmentation", "device", "kvlens", "replay"):
            axis = values[f"{view}-axis.value"] = rng.choice(("event", "time"))
            values[f"{view}-window.data"] = rng.choice((None, subject | {"axis": axis, "low": low, "high": high}))
        values["replay-capacity.value"] = f"{rng.randrange(1 << 20, 1 << 30)}"
        values["replay-strategies.value"] = ["caching"]
        values["replay-confs.value"] = [f"max_split_size_mb:{rng.randrange(21, 10_000)}"]
        return values


def ask_all(site: Served, clients: list[Client], n_requests: int) -> Counter[int]:
    """Have all clients ask at once; how often each status came."""

    def ask(client: Client) -> Counter[int]:
        return Counter(site.ask(*client.next())[0] for _ in range(n_requests // len(clients)))

    with ThreadPoolExecutor(len(clients)) as threads:
        return sum(threads.map(ask, clients), Counter())


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """More traces than are kept at a time."""
    made = [write_container(random_layout(i, 400).trace(), tmp_path / f"{i}.memscope") for i in range(3)]
    return [*TRACES, *made]


@pytest.mark.slow
def test_ten_clients_and_two_thousand_requests_leave_memory_where_it_was(files: list[Path], tmp_path: Path) -> None:
    store = TraceStore(files, n_kept=len(files))
    app = create_app(store)
    clients = [Client(store, app, seed) for seed in range(N_CLIENTS)]
    with served(tmp_path, files) as site:
        ask_all(site, clients, N_REQUESTS)
        before = site.resident_bytes()
        codes = ask_all(site, clients, N_REQUESTS)
        growth = site.resident_bytes() - before
        assert codes[200] > 0.9 * N_REQUESTS, codes
        assert "Traceback" not in site.said.read_text()
        assert growth < FREE_GROWTH_BYTES, f"{growth / MIB:.1f} MiB beside {before / MIB:.1f}"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_server_that_is_told_to_end_does_so_although_there_is_work(tmp_path: Path, number: signal.Signals) -> None:
    file = write_container(random_layout(1, 20_000).trace(), tmp_path / "long.memscope")
    app = create_app(TraceStore([file]))
    subject = {"trace": file.name, "device": 0}
    values = {"subject.data": subject, "moment.data": subject | {"event": 0}, "scheme.data": "dark"}
    with served(tmp_path, [file]) as site:
        status, answer = site.ask("POST", "/_dash-update-component", request_of(app, "replay-title.children", values))
        assert status == 200
        assert json.loads(answer)["response"]["replay-title"]["children"]
        assert b"0 of" in answer, "there is no work"
        begin = time.monotonic()
        site.process.send_signal(number)
        code = site.process.wait(60)
        assert code == (0 if number == signal.SIGINT else 128 + number)
        assert time.monotonic() - begin < 15
        assert "Traceback" not in site.said.read_text()
