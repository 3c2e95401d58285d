"""Each check of the computer is tried twice: as the computer is, and with the thing really broken."""

from __future__ import annotations

import platform
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from labsupport.machine import cgroup, computer_checks
from labsupport.machine.setup import needs


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the whole PATH; a test may put programs into it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    return folder


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_python_passes_and_an_older_one_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert computer_checks.python().state == "ok"

    monkeypatch.setattr(needs, "OLDEST_PYTHON", (99, 0))

    finding = computer_checks.python()
    assert finding.state == "fail"
    assert "install" in finding.remedy


@pytest.mark.skipif(
    shutil.which("c++") is None, reason="no compiler to find: sudo apt-get install build-essential"
)
def test_a_compiler_that_works_passes() -> None:
    assert computer_checks.compiler(needed=True).state == "ok"


def test_no_compiler_fails_before_the_build_and_is_a_note_after_it(only_path: Path) -> None:
    before, after = computer_checks.compiler(needed=True), computer_checks.compiler(needed=False)

    assert (before.state, after.state) == ("fail", "note")
    assert "compiler" in before.detail
    assert "install" in before.remedy


def test_a_compiler_that_only_pretends_fails(only_path: Path) -> None:
    for name in ("cc", "c++"):
        program(only_path, name, "echo cannot find -lstdc++ >&2; exit 1")

    finding = computer_checks.compiler(needed=True)

    assert finding.state == "fail"
    assert "cannot find -lstdc++" in finding.detail


def test_too_little_memory_fails_and_names_both_amounts() -> None:
    assert computer_checks.memory(least_bytes=1).state == "ok"

    finding = computer_checks.memory(least_bytes=2**50)

    assert finding.state == "fail"
    assert "1048576.0 GiB are needed" in finding.detail


def test_enough_memory_that_others_use_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory_limit_bytes", lambda: None)
    busy = SimpleNamespace(total=8 * computer_checks.GIB, available=computer_checks.GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: busy)

    finding = computer_checks.memory()

    assert finding.state == "note"
    assert "8.0 GiB, of which only 1.0 GiB are available" in finding.detail
    assert finding.remedy.startswith("close programs that use much memory")


def test_a_containers_limit_counts_as_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "self").write_text("0::/\n")
    read = cgroup.memory_limit_bytes
    monkeypatch.setattr(cgroup, "memory_limit_bytes", lambda: read(process=tmp_path / "self", mount=tmp_path))

    finding = computer_checks.memory()

    assert finding.state == "fail"
    assert finding.detail.startswith("1.0 GiB (the container's limit)")


def test_a_disk_that_is_too_small_fails_also_where_the_cache_is_not_made_yet(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    assert computer_checks.disk(folder, least_bytes=1).state == "ok"

    finding = computer_checks.disk(folder, least_bytes=2**60)

    assert finding.state == "fail"
    assert "LABSUPPORT_CACHE" in finding.remedy


def test_a_cache_that_cannot_be_made_fails(tmp_path: Path) -> None:
    assert computer_checks.cache(tmp_path / "new").state == "ok"
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("in the way")

    finding = computer_checks.cache(tmp_path / "file" / "cache")

    assert finding.state == "fail"
    assert "LABSUPPORT_CACHE" in finding.remedy


def test_a_busy_port_is_a_note_that_names_another() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]

        finding = computer_checks.port(taken)

    assert finding.state == "note"
    assert f"--port {taken + 1}" in finding.remedy
    assert computer_checks.port(taken).state == "ok"


def test_no_browser_is_a_note(only_path: Path) -> None:
    finding = computer_checks.browser()

    assert finding.state == "note"
    assert "chromium" in finding.remedy

    program(only_path, "chromium", "true")
    assert computer_checks.browser().state == "ok"


def test_no_bubblewrap_and_one_that_may_not_work_are_notes(only_path: Path) -> None:
    missing = computer_checks.sandbox()
    program(only_path, "bwrap", "echo 'setting up uid map: Permission denied' >&2; exit 1")
    forbidden = computer_checks.sandbox()

    assert (missing.state, forbidden.state) == ("note", "note")
    assert missing.remedy == "to grade a class: " + needs.install(
        apt="bubblewrap", dnf="bubblewrap", pacman="bubblewrap", brew=""
    )
    assert "Permission denied" in forbidden.detail
    assert "sysctl" in forbidden.remedy


@pytest.mark.parametrize("body", ["while :; do :; done", None], ids=["it hangs", "it is no program"])
def test_a_bubblewrap_that_cannot_be_run_is_to_be_replaced(only_path: Path, body: str | None) -> None:
    program(only_path, "bwrap", body or "")
    if body is None:
        (only_path / "bwrap").write_bytes(b"\x7fELF and no more")

    finding = computer_checks.sandbox(timeout_seconds=0.5)

    assert finding.state == "note"
    assert "could not be run" in finding.detail
    assert finding.remedy.startswith(f"remove {only_path / 'bwrap'}, which is broken; then: ")


def test_on_a_mac_grading_is_done_in_the_courses_image_as_the_grader_says_too(
    only_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")

    remedy = computer_checks.sandbox().remedy

    assert remedy == f"to grade a class: {computer_checks.GRADE_IN_IMAGE}"
    assert "`make image`" in remedy
    assert computer_checks.browser().remedy == "to run every test: brew install --cask chromium"


@pytest.mark.sandbox
def test_a_bubblewrap_that_works_passes() -> None:
    assert computer_checks.sandbox().state == "ok"
