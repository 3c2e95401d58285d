"""Everything that gets installed has a pin, and the ways to install it agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

from labsupport.machine.setup.freeze import text
from labsupport.machine.setup.requirements import PIN, Requirements, normal, read_pins

ROOT = Path(__file__).parents[2]
PINS = read_pins(ROOT / "constraints.txt")


def test_every_line_of_the_constraints_is_an_exact_pin_without_a_build_label():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not PIN.match(line) or "+" in line] == []
    assert len(lines) == len(PINS)


def test_every_package_that_the_project_names_is_pinned():
    requirements = Requirements.read(ROOT)
    assert {*requirements.names, "pip", "setuptools"} <= set(PINS)


def test_extras_for_a_gpu_and_a_cluster_exist_and_ask_for_nothing_that_set_up_would_not_install():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == {"dev", "gpu", "cluster"}
    assert extras["gpu"] == extras["cluster"] == []


def test_what_is_installed_here_is_what_is_pinned():
    freeze = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude-editable"]
    frozen = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.splitlines()
    pins = [line for line in text(frozen, kept={}).splitlines() if PIN.match(line)]
    assert [pin for pin in pins if PINS.get(normal(pin.split("==")[0])) != pin.split("==")[1]] == []


def test_every_pin_can_be_installed_on_the_oldest_python_that_the_course_allows():
    """Debian 12 has Python 3.11.2; a package may ask for a later one of the same line."""
    asked = {one.name: one.metadata["Requires-Python"] or "" for one in metadata.distributions()}
    assert [name for name, versions in asked.items() if not SpecifierSet(versions).contains("3.11.0")] == []


def test_frozen_lines_become_pins_whatever_they_were_installed_from():
    frozen = ["torch==2.13.0+cpu", "pytest @ file:///somewhere/pytest.whl", "Jinja2==3.1.6"]
    lines = text(frozen, kept={"cmake": "4.4.4"}).splitlines()
    assert {"torch==2.13.0", "Jinja2==3.1.6", f"pytest=={PINS['pytest']}", "cmake==4.4.4"} <= set(lines)


def test_conda_users_get_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = dict(re.split("[=<>]+", line, maxsplit=1) for line in environment["dependencies"] if "=" in line)
    (pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))

    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]
    assert conda["pip"] == PINS["pip"]
    assert tuple(map(int, conda["python"].split("."))) >= (3, 11)
    # A package from conda-forge beside the same one from pip would be two versions of one thing.
    names = {line.split("=")[0] for line in environment["dependencies"] if isinstance(line, str)}
    assert names == {"python", "pip", "c-compiler", "cxx-compiler", "make"}
