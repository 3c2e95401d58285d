"""`labsupport doctor`: every check with what it found, and the remedy for what is wrong."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labsupport.machine.doctor import Check, Finding

MARKS = {"ok": "ok  ", "note": "note", "fail": "FAIL"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print every finding as soon as it is known; returns 1 if a check failed."""
    from labsupport.machine.doctor import examine

    findings = []
    for finding in examine(checks()):
        findings.append(finding)
        if not arguments.json:
            print(lines(finding), flush=True)
    failed = sum(finding.state == "fail" for finding in findings)
    if arguments.json:
        print(
            json.dumps(
                {"healthy": not failed, "findings": [asdict(finding) for finding in findings]}, indent=1
            )
        )
    else:
        print(f"\n{failed} of {len(findings)} checks failed." if failed else "\nNothing stands in the way.")
    return 1 if failed else 0


def checks() -> list[Check]:
    """All checks of the course, in the order in which one would mend them."""
    from labsupport.machine import computer_checks, package_checks
    from labsupport.machine.doctor import Check
    from labsupport.machine.setup.session import cache_folder

    folder = cache_folder()
    return [
        Check("python", computer_checks.python),
        Check(
            "compiler",
            lambda: computer_checks.compiler(needed=not package_checks.installed("llama-cpp-python")),
        ),
        Check("memory", computer_checks.memory),
        Check("disk", lambda: computer_checks.disk(folder)),
        Check("cache", lambda: computer_checks.cache(folder)),
        Check("environment", package_checks.environment),
        Check("versions", package_checks.versions),
        Check("gpu", package_checks.gpu),
        Check("torch", package_checks.torch),
        Check("model", model),
        Check("llama.cpp", lambda: package_checks.llama(_pocket_gguf())),
        Check("browser", computer_checks.browser),
        Check("sandbox", computer_checks.sandbox),
        Check("port", computer_checks.port),
    ]


def lines(finding: Finding) -> str:
    """One finding as it is printed: mark, name and detail, and below them the remedy."""
    text = f"{MARKS[finding.state]}  {finding.check:<12}  {finding.detail}"
    remedy = textwrap.indent(f"What to do: {finding.remedy}", " " * 20)
    return f"{text}\n{remedy}" if finding.remedy else text


def model() -> Finding:
    """The bundled weights, and the files made of them, are what they were when they were written."""
    from labsupport.machine.doctor import Finding
    from labsupport.models.verify import verify

    checked = verify("pocket")
    faults = [one for one in checked if one.problem]
    if faults:
        made = faults[0].file.suffix == ".gguf"
        remedy = f"rm '{faults[0].file}'; it is made again" if made else f"git checkout -- '{faults[0].file}'"
        return Finding("model", "fail", faults[0].problem, remedy)
    return Finding("model", "ok", f"all {len(checked)} files of pocket are whole")


def _pocket_gguf() -> Path:
    from labsupport import models

    return models.path("pocket")
