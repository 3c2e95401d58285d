"""A real JupyterLab in a real browser, on a copy of the course.

The copy matters: JupyterLab saves what it opens. The order of waiting matters too: a run started before the
widget's context and the kernel session are ready is lost without a word, and so is one that is started by
clicking the menu. So every action here goes through the application's own commands, and every wait is for a
state of the notebook's model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, sync_playwright

COURSE = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
SETTINGS = {  # else as set-up leaves them
    # Every cell is in the page, also the ones out of sight: a picture shows all, and a locator finds all.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
NOTEBOOK = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook"
MARGIN_PIXELS = 24
CURRENT = "const panel = window.jupyterapp.shell.currentWidget; const cells = panel.content.widgets;"


def browser_path() -> str | None:
    """Return the first installed browser that this harness knows, or None."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, the token that it wants, and the folder that it serves."""

    url: str
    token: str
    root: Path


def copy_course(folder: Path) -> Path:
    """Copy the notebooks, without their sources, to `folder`, and return it."""
    for part in ("lessons", "labs"):
        source = COURSE / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "src"))
    return folder


@contextlib.contextmanager
def running_lab(root: Path, *, start_seconds: float = 240) -> Iterator[Lab]:
    """Serve `root` with JupyterLab on a free local port, with settings and workspaces of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="jupyterlab-") as private_name:
        private = Path(private_name)
        for name, values in SETTINGS.items():
            file = private / "settings" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        environment = os.environ | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "JUPYTER_CONFIG_DIR": str(private / "config"),
            "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        log = private / "log"
        options = [
            "--no-browser",
            "--allow-root",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={root}",
            f"--IdentityProvider.token={token}",
            "--LabApp.expose_app_in_browser=True",
        ]
        with log.open("w") as output:
            server = subprocess.Popen(
                [sys.executable, "-m", "jupyter", "lab", *options],
                stdout=output,
                stderr=output,
                env=environment,
            )
        lab = Lab(url=f"http://127.0.0.1:{port}", token=token, root=root)
        try:
            _wait_until_it_answers(lab, server, log, start_seconds)
            yield lab
        finally:
            _stop(lab, server)


def _wait_until_it_answers(lab: Lab, server: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{lab.url}/api?token={lab.token}", timeout=5)
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start within {seconds} s:\n{log.read_text()}")


def _stop(lab: Lab, server: subprocess.Popen[bytes]) -> None:
    """Ask the server to shut down, which also ends its kernels."""
    request = urllib.request.Request(
        f"{lab.url}/api/shutdown", method="POST", headers={"Authorization": f"token {lab.token}"}
    )
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        urllib.request.urlopen(request, timeout=5)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.terminate()
        server.wait(20)


@contextlib.contextmanager
def browser_page(*, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Open one page of a real browser, `width` × `height` CSS pixels."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


class Notebook:
    """One notebook, open in a JupyterLab in a browser. Cells are numbered from 0, markdown cells included."""

    def __init__(self, page: Page, lab: Lab, file: str, *, open_seconds: float = 240) -> None:
        """Open `file`, relative to the lab's root, and return when its kernel is ready to run a cell."""
        self.page = page
        page.set_default_timeout(open_seconds * 1000)
        workspace = secrets.token_hex(4)
        page.goto(f"{lab.url}/lab/workspaces/{workspace}/tree/{file}?token={lab.token}&reset")
        page.wait_for_function("() => window.jupyterapp !== undefined")
        ready = page.evaluate(
            """async milliseconds => {
                const app = window.jupyterapp;
                const open = async () => {
                    await app.restored;
                    while (!app.shell.currentWidget?.context) await new Promise(done => setTimeout(done, 50));
                    const panel = app.shell.currentWidget;
                    await panel.context.ready;
                    await panel.sessionContext.ready;
                    await panel.sessionContext.session.kernel.info;
                    app.shell.collapseLeft();
                    app.shell.collapseRight();
                    return true;
                };
                return await Promise.race([open(), new Promise(done => setTimeout(done, milliseconds))]);
            }""",
            open_seconds * 1000,
        )
        if not ready:
            question = page.locator(".jp-Dialog-header").all_inner_texts()
            raise TimeoutError(f"{file} was not ready after {open_seconds} s; JupyterLab asks: {question}")

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """Run JavaScript that sees `panel`, its `cells` and `argument`, and return its result."""
        return self.page.evaluate(f"async (argument) => {{ {CURRENT} {script} }}", argument)

    def cells(self) -> list[dict[str, Any]]:
        """The notebook as JupyterLab holds it now: cell type, source, execution count, outputs."""
        cells: list[dict[str, Any]] = self.evaluate("return cells.map(cell => cell.model.toJSON());")
        return cells

    def run_all(self, *, seconds: float = 480) -> None:
        """Run every cell, from the first to the last, and return when all are done or one has failed."""
        self._execute("notebook:run-all-cells", seconds)

    def run_cell(self, index: int, *, seconds: float = 240) -> None:
        """Run the cell at `index` and return when it is done."""
        self.evaluate("panel.content.deselectAll(); panel.content.activeCellIndex = argument;", index)
        self._execute("notebook:run-cell", seconds)

    def _execute(self, command: str, seconds: float) -> None:
        finished = self.page.evaluate(
            """async ([command, milliseconds]) => {
                const expired = new Promise(done => setTimeout(() => done(false), milliseconds));
                const run = window.jupyterapp.commands.execute(command).then(() => true);
                return await Promise.race([run, expired]);
            }""",
            [command, seconds * 1000],
        )
        if not finished:
            raise TimeoutError(f"{command} was not done after {seconds} s")

    def set_source(self, index: int, source: str) -> None:
        """Replace the text of the cell at `index`, as typing would."""
        self.evaluate("cells[argument[0]].model.sharedModel.setSource(argument[1]);", [index, source])

    def find_cell(self, text: str) -> int:
        """Return the index of the one cell whose source contains `text`."""
        found = [index for index, cell in enumerate(self.cells()) if text in "".join(cell["source"])]
        if len(found) != 1:
            raise LookupError(f"{len(found)} cells contain {text!r}: {found}")
        return found[0]

    def errors(self) -> list[str]:
        """The name and value of every error output of the notebook."""
        return [
            f"cell {index}: {output['ename']}: {output['evalue']}"
            for index, cell in enumerate(self.cells())
            for output in cell.get("outputs", [])
            if output["output_type"] == "error"
        ]

    def notifications(self) -> list[str]:
        """What JupyterLab says in boxes over the page."""
        return self.page.locator(".jp-toast-message").all_inner_texts()

    def text_of(self, index: int) -> str:
        """What a reader sees under the cell at `index`: its outputs as rendered text."""
        text: str = self.cell(index).locator(".jp-Cell-outputWrapper").inner_text()
        return text.strip()

    def cell(self, index: int) -> Locator:
        """The cell at `index` on the page; -1 is the last."""
        return self.page.locator(f"{NOTEBOOK} .jp-Cell").nth(index)

    def image_hashes(self, index: int) -> list[str]:
        """One hash per picture under the cell at `index`: a redrawn figure has another one."""
        sources = (
            self.cell(index)
            .locator(".jp-OutputArea img, .jp-OutputArea canvas")
            .evaluate_all("pictures => pictures.map(it => it.tagName === 'CANVAS' ? it.toDataURL() : it.src)")
        )
        return [hashlib.sha256(source.encode()).hexdigest() for source in sources]

    def wait_for_picture(self, index: int) -> None:
        """Wait until the cell at `index` shows a picture; a widget draws a moment after its cell is done."""
        self.wait_for_other_picture(index, [])

    def wait_for_other_picture(self, index: int, known: list[str], *, seconds: float = 120) -> list[str]:
        """Wait until the pictures under the cell at `index` differ from `known`, and return their hashes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            hashes = self.image_hashes(index)
            if hashes and hashes != known:
                return hashes
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"cell {index} still showed the same pictures after {seconds} s")

    def drag(self, handle: Locator, *, pixels: int) -> None:
        """Drag a slider's handle sideways with the mouse, in small steps, as a hand does."""
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + pixels, y, steps=8)
        self.page.mouse.up()

    def picture(self, file: Path) -> None:
        """Write the whole notebook, from its first cell to its last, as one PNG at the page's width."""
        viewport = self.page.viewport_size
        assert viewport is not None
        self.page.wait_for_function("() => [...document.images].every(image => image.complete)")
        # The notebook scrolls inside a panel: the page is made as high as the panel would have to be.
        missing = self.evaluate(
            """const view = panel.content.node.querySelector('.jp-WindowedPanel-outer') ?? panel.content.node;
            view.scrollTop = 0;
            return view.scrollHeight - view.clientHeight;"""
        )
        self.page.set_viewport_size({"width": viewport["width"], "height": viewport["height"] + missing})
        self.page.wait_for_timeout(500)  # the browser lays out again; nothing announces its end
        whole, last = self.page.locator(NOTEBOOK).bounding_box(), self.cell(-1).bounding_box()
        assert whole is not None
        assert last is not None
        whole["height"] = last["y"] + last["height"] + MARGIN_PIXELS - whole["y"]
        self.page.screenshot(path=file, clip=whole)
        self.page.set_viewport_size(viewport)

    def view(self, index: int, file: Path) -> None:
        """Write what a reader sees with the cell at `index` at the top, JupyterLab around it, as one PNG."""
        self.evaluate("cells[argument].node.scrollIntoView({block: 'start'});", index)
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=file)
