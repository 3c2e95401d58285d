"""The engine room as its reader sees it: in a real browser, on the server's page and in JupyterLab."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from jupyterlab_driver import Notebook, browser_page, running_lab
from PIL import Image, ImageChops
from playwright.sync_api import Page

import labsupport
from labsupport.server.launch import Server

pytestmark = [pytest.mark.browser, pytest.mark.slow]
KEY = "a-key-for-the-room"
PATIENCE_MILLISECONDS = 180_000
STEM = "You answer the questions of a team that runs servers, briefly and with numbers. " * 5
FRAMES = "Number(document.querySelector('.engine-room')?.dataset.frames ?? 0)"
TWO_SHARE = """[...document.querySelectorAll('.tables table')].at(-1).innerText.split('\\n').some(
    row => /^[0-9a-f]{6}(, | and )[0-9a-f]{6}/.test(row) && row.includes('in use, shared'))"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with labsupport.serve("pocket", "q4_k_m", slots=4, context=512, debug=True) as running:
        yield running


@contextmanager
def two_requests(server: Server) -> Iterator[None]:
    """Two requests that begin alike, through the official client, again and again for the block."""
    is_over = threading.Event()

    def ask(name: str) -> None:
        with server.openai() as client:
            while not is_over.is_set():
                client.completions.create(
                    model=server.model, prompt=STEM + name, max_tokens=200, extra_body={"ignore_eos": True}
                )

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def wait_for(page: Page, expression: str) -> None:
    """Wait until some JavaScript is true; a function, for the page's policy forbids to evaluate a string."""
    page.wait_for_function(f"() => {expression}", timeout=PATIENCE_MILLISECONDS)


def open_room(page: Page, url: str) -> list[str]:
    """Open the page; the list that comes back fills with whatever its scripts complain about."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    page.goto(url)
    return complaints


def picture_of(page: Page, file: Path) -> Image.Image:
    page.locator(".pictures").screenshot(path=file)
    return Image.open(file).convert("L")  # in shades of grey, as some see it and some print it


@pytest.mark.parametrize("width", [1280, 800])
def test_two_requests_are_seen_in_the_picture_and_in_the_tables(server, tmp_path, width):
    with browser_page(width=width) as page:
        complaints = open_room(page, server.url)
        wait_for(page, f"{FRAMES} > 3")
        assert "no request" in page.locator(".tables").inner_text()
        assert "The engine is ready." in page.get_by_role("status").inner_text()
        idle = picture_of(page, tmp_path / "idle.png")

        with two_requests(server):
            wait_for(page, TWO_SHARE)
            wait_for(page, "document.querySelectorAll('.cells rect.bar[fill*=shared]').length > 0")
            busy = picture_of(page, tmp_path / "busy.png")
            assert "decoding" in page.locator(".tables").inner_text()
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

        wait_for(page, "document.querySelector('.tables').innerText.includes('no request')")
    assert len(set(idle.getdata())) > 10
    assert busy.size[0] > 0.9 * min(width, 1400) - 64
    assert ImageChops.difference(
        *(image.crop((0, 0, *map(min, idle.size, busy.size))) for image in (idle, busy))
    ).getbbox()
    assert complaints == []


def test_it_pauses_by_keyboard_announces_states_alone_and_comes_back_after_a_crash(server):
    with browser_page() as page:
        open_room(page, server.url)
        wait_for(page, f"{FRAMES} > 3")
        assert page.locator("[aria-live], [role=status], [role=alert]").count() == 2  # the form's, and this
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Pause the picture"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
        page.wait_for_timeout(500)
        paused = page.evaluate(FRAMES)
        page.wait_for_timeout(1500)
        assert page.evaluate(FRAMES) == paused
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("Requests")

        os.kill(server.get("/debug/engine").json()["pid"], signal.SIGKILL)
        wait_for(page, "document.querySelector('[role=status]').innerText.includes('started again')")
        wait_for(page, "document.querySelector('[role=status]').innerText.includes('is ready')")
        wait_for(page, "document.querySelector('.tiles').innerText.includes('Restarts')")


def test_who_wants_no_motion_gets_one_picture_a_second(server):
    with browser_page() as page:
        page.emulate_media(reduced_motion="reduce")
        open_room(page, server.url)
        wait_for(page, f"{FRAMES} > 1")
        before = page.evaluate(f"[{FRAMES}, performance.now()]")
        page.wait_for_timeout(4000)
        after = page.evaluate(f"[{FRAMES}, performance.now()]")

    assert 0 < after[0] - before[0] <= (after[1] - before[1]) / 1000 + 1


def test_a_key_opens_the_room_and_a_wrong_one_is_told_so():
    with (
        labsupport.serve("pocket", "q4_k_m", slots=2, context=512, api_key=KEY) as server,
        browser_page() as page,
    ):
        open_room(page, server.url)
        field = page.get_by_label("API key")
        field.fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("The API key is not known to this server.").wait_for()
        assert not page.locator("#room").is_visible()
        field.fill(KEY)
        page.keyboard.press("Enter")
        wait_for(page, f"{FRAMES} > 3")
        assert not page.locator("#door").is_visible()
        (cookie,) = page.context.cookies(f"{server.url}/room/events")
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert KEY not in cookie["value"]
        assert page.evaluate("document.cookie") == ""

        page.reload()
        wait_for(page, f"{FRAMES} > 3")  # without being asked again


def test_the_same_room_is_live_in_a_notebook_even_while_a_cell_runs(server, tmp_path):
    cells = [
        f"from labsupport.notebook import EngineRoom\nroom = EngineRoom({server.url!r})\nroom",
        "import pathlib, time\nwhile not pathlib.Path('seen').exists(): time.sleep(0.1)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "room.ipynb")

    with running_lab(tmp_path) as lab, browser_page() as page:
        opened = Notebook(page, lab, "room.ipynb")
        opened.run_cell(0)
        wait_for(page, f"{FRAMES} > 3")
        with two_requests(server):
            opened.evaluate(
                """panel.content.deselectAll(); panel.content.activeCellIndex = 1;
                window.jupyterapp.commands.execute('notebook:run-cell');"""  # not waited for: it is endless
            )
            wait_for(page, TWO_SHARE)
            page.screenshot(path=tmp_path / "notebook.png")
            (tmp_path / "seen").touch()
        assert opened.errors() == []
        fallback = opened.cells()[0]["outputs"][-1]["data"]

    assert fallback["text/plain"].startswith("Engine room")
    assert fallback["text/html"]
