"""A real Chromium, and the dashboard served to it on a free port."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from memscope_dashboard.app import _server, create_app
from memscope_dashboard.store import TraceStore

from memscope.analysis import Analysis, load
from memscope.trace.container import write_container
from tests.kv_cache.serving_program import serving_trace
from tests.naive_layout import random_layout
from tests.oracles import BAD, REAL
from tests.training_trace import training_trace

sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
PATIENCE_MS = 60_000
"""How long the page may take to say what is waited for: nothing is slower for it, and a busy machine is not a fault."""
TRACES = Path(__file__).resolve().parents[2] / "traces"


class Site:
    """The served dashboard and the files it shows."""

    def __init__(self, address: str, files: dict[str, Path]) -> None:
        self.address = address
        self.files = files

    def url(self, view: str, trace: str) -> str:
        return f"{self.address}/{view}?trace={self.files[trace].name}"

    def analysis(self, trace: str) -> Analysis:
        return load(self.files[trace])


def _files(folder: Path) -> dict[str, Path]:
    files = {
        "train": write_container(training_trace(4, 6), folder / "train.memscope"),
        "other": write_container(random_layout(5, 60).trace(), folder / "other.memscope"),
        "serving": write_container(serving_trace(), folder / "serving.memscope"),
    }
    real = [*sorted(TRACES.glob("*train*.memscope")), *sorted(REAL.glob("lm-fwd-bwd-seq150.pickle.gz"))]
    files["real"] = real[0] if real else files["train"]
    broken = folder / "broken.memscope"
    broken.write_bytes(b"nothing of the kind")
    files["broken"] = BAD / "double-free.pickle" if BAD.is_dir() else broken
    return files


@contextmanager
def served(files: dict[str, Path]) -> Iterator[Site]:
    """Serve some traces on a free port."""
    store = TraceStore(list(dict.fromkeys(files.values())))
    app = create_app(store)
    server = _server(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Site(f"http://127.0.0.1:{server.server_port}", files)
    server.shutdown()
    thread.join(10)
    server.server_close()
    store.close(120)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(_files(tmp_path_factory.mktemp("site"))) as site:
        yield site


@pytest.fixture(scope="session")
def chromium() -> Iterator[sync_api.Browser]:
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class Watched:
    """A page whose complaints are kept: what it logs, what fails, whom it asks."""

    def __init__(self, page: sync_api.Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", self._check)

    def _hear(self, message: sync_api.ConsoleMessage) -> None:
        # A browser without a GPU reads WebGL pictures back, and says that this is slow.
        if message.type in ("error", "warning") and "GPU stall due to ReadPixels" not in message.text:
            self.complaints.append(message.text)

    def _check(self, request: sync_api.Request) -> None:
        if not request.url.startswith(("http://127.0.0.1", "file:", "data:", "blob:")):
            self.complaints.append(f"asked {request.url}")

    def open(self, url: str) -> sync_api.Page:
        self.page.goto(url)
        if "127.0.0.1" in url:
            self.page.wait_for_selector(".view-panel:not(.waiting)", state="attached")
        return self.page


def click_and_be_answered(page: sync_api.Page, button: str) -> None:
    """Click a button, and wait until the server has answered that click: only then has it taken effect."""
    prop_id = f"{button}.n_clicks"

    def answers(response: sync_api.Response) -> bool:
        sent = response.request.post_data
        return bool(sent) and prop_id in json.loads(sent).get("changedPropIds", ())

    with page.expect_response(answers):
        page.click(f"#{button}")


def plot_box(page: sync_api.Page, graph: str) -> sync_api.FloatRect:
    """Where the plot of a picture lies, once the page has drawn all that it was told to."""
    page.wait_for_function(
        """(id) => {
            const graph = document.querySelector(`#${id} .js-plotly-plot`);
            return graph && graph.data && graph.data.length && !graph.classList.contains('dash-graph--pending');
        }""",
        arg=graph,
    )
    plot = page.locator(f"#{graph} .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    return box


def wait_for_event_between(page: sync_api.Page, low: float, high: float) -> None:
    """Wait until the moment in the address lies between two events."""
    page.wait_for_function(
        "([low, high]) => {const e = Number(new URLSearchParams(location.search).get('event'));"
        " return low < e && e < high}",
        arg=[low, high],
    )


@pytest.fixture
def watched(chromium: sync_api.Browser) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    context.set_default_timeout(PATIENCE_MS)
    watched = Watched(context.new_page())
    yield watched
    context.close()
    assert watched.complaints == []
