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
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from labsupport.machine import computer_checks, nvidia
from labsupport.machine.doctor import REPAIR, Finding


@dataclass(frozen=True)
class Tool:
    """Something that a marked test needs; `lack` says why it cannot be had here, or nothing."""

    marker: str
    lack: str
    remedy: str
    installable: bool = True


@functools.cache
def tools() -> tuple[Tool, ...]:
    no_gpu = "" if nvidia.is_present() else "no NVIDIA GPU"
    return (
        _as_the_doctor_says(_browser()),
        _as_the_doctor_says(computer_checks.sandbox()),
        Tool("gpu", no_gpu, "run on a computer that has one", installable=False),
    )


def _as_the_doctor_says(finding: Finding) -> Tool:
    return Tool(finding.check, "" if finding.state == "ok" else finding.detail, finding.remedy)


def _browser() -> Finding:
    if importlib.util.find_spec("playwright") is None:
        return Finding("browser", "note", "the Python package playwright is not installed", REPAIR)
    return computer_checks.browser()


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer without an NVIDIA GPU, whatever this one is; a test may put one into its `dev` or `bin`."""
    for name in ("dev", "gpus", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(nvidia, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(nvidia, "DRIVERS_LIST", tmp_path / "gpus")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


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
