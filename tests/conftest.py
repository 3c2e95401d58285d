"""What every test shares: no reader's own data, and tools that may be missing.

A test marked `browser`, `sandbox` or `gpu` needs something that not every computer has. Where it is
missing, the test is skipped, and the last lines of the run say how many were, why, and which command helps.
With `LABSUPPORT_REQUIRE_ALL` set (as `.ci/run` does), or under `CI=true`, a missing tool is a failure
instead; a missing GPU is not, because nobody can install one.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass

import pytest

from labsupport.machine.setup.needs import install
from labsupport.machine.setup.torch_build import has_nvidia_gpu

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Tool:
    """Something that a marked test needs; `lack` says why it cannot be had here, or nothing."""

    marker: str
    lack: str
    remedy: str
    installable: bool = True


@functools.cache
def tools() -> tuple[Tool, ...]:
    return (
        Tool(
            "browser",
            _browser_lack(),
            install(apt="chromium", dnf="chromium", pacman="chromium", brew="--cask chromium"),
        ),
        Tool(
            "sandbox",
            _sandbox_lack(),
            install(apt="bubblewrap", dnf="bubblewrap", pacman="bubblewrap", brew=""),
        ),
        Tool(
            "gpu",
            "" if has_nvidia_gpu() else "no NVIDIA GPU",
            "run on a computer that has one",
            installable=False,
        ),
    )


def _browser_lack() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "the Python package playwright is not installed"
    return "" if any(map(shutil.which, BROWSERS)) else "no Chromium or Chrome on PATH"


def _sandbox_lack() -> str:
    if shutil.which("bwrap") is None:
        return "no bubblewrap (bwrap) on PATH"
    probe = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    result = subprocess.run(probe, capture_output=True, text=True)
    return "" if result.returncode == 0 else f"bubblewrap does not work here: {result.stderr.strip()}"


def all_required() -> bool:
    """Whether a tool that could be installed must be there."""
    return os.environ.get("CI") == "true" or bool(os.environ.get("LABSUPPORT_REQUIRE_ALL"))


def pytest_configure(config: pytest.Config) -> None:
    # Before anything is imported or started: notebooks and servers of the tests inherit it.
    folder = tempfile.TemporaryDirectory(prefix="labsupport-reader-")
    config.add_cleanup(folder.cleanup)
    os.environ["LABSUPPORT_DATA"] = folder.name
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for tool in tools():
        if tool.lack and item.get_closest_marker(tool.marker):
            if all_required() and tool.installable:
                pytest.fail(f"{tool.lack}, and nothing may be missing here. {tool.remedy}", pytrace=False)
            item.config.stash.setdefault(LACKING, Counter())[tool.marker] += 1
            pytest.skip(tool.lack)


LACKING = pytest.StashKey[Counter[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lacking = config.stash.get(LACKING, None)
    if not lacking:
        return
    terminalreporter.section("NOT TESTED on this computer", sep="!", yellow=True, bold=True)
    for tool in tools():
        if count := lacking[tool.marker]:
            terminalreporter.line(f"{count} tests marked {tool.marker}: {tool.lack}")
            terminalreporter.line(f"    What to do: {tool.remedy}")
