"""What is installed, in which version: names from `pyproject.toml`, pins from `constraints.txt`.

Right means: nothing is installed whose version is not written in `constraints.txt`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labsupport.errors import LabsupportError

PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;#]+)")
CONSTRAINTS = "constraints.txt"


def normal(name: str) -> str:
    """A package's name as the index compares it: `Jinja2` and `jinja2` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Requirements:
    """The packages of one clone: those asked for by name, and the pins of all."""

    names: tuple[str, ...]
    pins: Mapping[str, str]

    @classmethod
    def read(cls, root: Path) -> Requirements:
        """The requirements of the clone at `root`."""
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        return cls(
            names=_names([*project["dependencies"], *extras["dev"]]),
            pins=read_pins(root / CONSTRAINTS),
        )

    def version(self, name: str) -> str:
        """The pinned version of a package; raises `LabsupportError` if it has none."""
        try:
            return self.pins[normal(name)]
        except KeyError:
            raise LabsupportError(
                f"{name} has no pin in {CONSTRAINTS}.", remedy=f"add a line such as {name}==1.2.3"
            ) from None


def read_pins(path: Path) -> dict[str, str]:
    """The versions in a constraints file, by normal name."""
    matches = (PIN.match(line) for line in path.read_text().splitlines())
    return {normal(match["name"]): match["version"] for match in matches if match}


def _names(requirements: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({normal(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in requirements}))
