"""CI runs what a reader runs, nothing is skipped there for lack of a tool, and pytest has the last word."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "tee", "cat", "rm", "mktemp", "dirname", "grep", "tail", "id")
SUMMARY = "===== 1 failed, 2 passed in 0.10s ====="
MARKED = """\
import pytest

@pytest.mark.browser
def test_page(): pass

@pytest.mark.sandbox
def test_room(): pass

def test_plain(): pass
"""


@pytest.fixture
def bin_folder(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    for name in ("bwrap", "chromium"):
        (folder / name).touch(mode=0o755)
    return folder


def ci_run(bin_folder: Path, make: str) -> subprocess.CompletedProcess[str]:
    """`.ci/run` with a `make` that does what this script says."""
    (bin_folder / "make").write_text(f"#!/bin/sh\n{make}\n")
    (bin_folder / "make").chmod(0o755)
    return subprocess.run(
        [ROOT / ".ci" / "run"], env={"PATH": str(bin_folder)}, capture_output=True, text=True, cwd="/"
    )


@pytest.mark.parametrize("status", [1, 2, 5])
def test_after_a_failure_the_summary_comes_last_and_the_status_is_pytests(bin_folder, status):
    script = (
        f"echo '{SUMMARY}'; echo {status} > \"$PYTEST_STATUS_FILE\"; echo 'make: *** Error 1' >&2; exit 2"
    )
    result = ci_run(bin_folder, script)
    assert result.stdout.splitlines()[-1] == SUMMARY
    assert result.stderr == ""
    assert result.returncode == status


def test_after_a_success_the_summary_comes_last(bin_folder):
    line = "===== 3 passed in 0.10s ====="
    result = ci_run(bin_folder, f"echo '{line}'; echo 0 > \"$PYTEST_STATUS_FILE\"")
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, line)


def test_a_set_up_that_fails_is_not_taken_for_passed_tests(bin_folder):
    result = ci_run(bin_folder, "echo 'No compiler'; exit 2")
    assert result.returncode == 1
    assert "set-up failed" in result.stdout.splitlines()[-1]


def test_missing_tools_are_installed_first(bin_folder):
    (bin_folder / "chromium").unlink()
    (bin_folder / "env").symlink_to(shutil.which("env"))
    for name in ("apt-get", "sudo"):
        script = '#!/bin/sh\n[ "$0" = "${0%sudo}" ] && echo "apt-get $*" || "$@"\n'
        (bin_folder / name).write_text(script)
        (bin_folder / name).chmod(0o755)
    printed = ci_run(bin_folder, 'echo tests; echo 0 > "$PYTEST_STATUS_FILE"').stdout.splitlines()
    assert printed[0] == "apt-get update -qq"
    assert printed[1].endswith(" chromium")
    assert printed[2] == "tests"


def test_public_ci_calls_the_same_script():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": ".ci/run"}


def marked_tests(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run tests that need tools, on a PATH without any."""
    (folder / "test_marked.py").write_text(MARKED)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    browser\n    sandbox\n")
    words = ["-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(folder)]
    surroundings = {"PATH": str(folder), "PYTHONPATH": str(ROOT), "HOME": str(folder), **environment}
    return subprocess.run(
        [sys.executable, *words], env=surroundings, capture_output=True, text=True, cwd=folder
    )


def test_a_missing_tool_is_a_counted_skip_with_its_reason_and_remedy(tmp_path):
    result = marked_tests(tmp_path)
    assert result.returncode == 0
    assert "1 passed, 2 skipped" in result.stdout
    assert "NOT TESTED on this computer" in result.stdout
    assert "1 tests marked browser: no Chromium or Chrome on PATH" in result.stdout
    assert "1 tests marked sandbox: no bubblewrap (bwrap) on PATH" in result.stdout
    assert result.stdout.count("What to do: ") == 2


@pytest.mark.parametrize("strict", [{"CI": "true"}, {"LABSUPPORT_REQUIRE_ALL": "1"}])
def test_where_everything_must_be_there_a_missing_tool_is_a_failure(tmp_path, strict):
    result = marked_tests(tmp_path, **strict)
    assert result.returncode == 1
    assert "no Chromium or Chrome on PATH, and nothing may be missing here" in result.stdout
    assert "skipped" not in result.stdout.splitlines()[-1]
