"""`make constraints`: write `constraints.txt` from what is installed in `.venv`, for maintainers.

Right means: after `make constraints` in an environment that passes the tests, another computer installs the
same versions. What is only needed to compile llama-cpp-python never gets into `.venv`: its pins stay as
they are.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from labsupport.machine.setup.requirements import CONSTRAINTS, normal, read_pins

HEADER = """\
# The version of everything that gets installed. Written by `make constraints`; what to install stands in
# pyproject.toml. The CUDA build of torch brings CUDA packages whose versions it pins itself.
"""
KEPT_HEADER = "# Not in every environment: what compiles llama-cpp-python.\n"
KEPT = ("cmake", "ninja", "scikit-build-core")


def main() -> int:
    """Rewrite the constraints of the clone in the current folder."""
    path = Path(CONSTRAINTS)
    before = read_pins(path)
    command = [
        sys.executable,
        "-m",
        "pip",
        "freeze",
        "--all",
        "--exclude-editable",
        "--exclude",
        "labsupport",
    ]
    frozen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    path.write_text(text(frozen, kept={name: before[name] for name in KEPT}))
    return 0


def text(frozen: list[str], *, kept: dict[str, str]) -> str:
    """The constraints file for these lines of `pip freeze`.

    A label such as `+cpu` is dropped: it names a build, not a version. A package that was installed from a
    file is frozen as `name @ URL`; its version is asked of the environment.
    """
    pins = []
    for line in frozen:
        name, _, rest = line.partition(" @ ") if " @ " in line else line.partition("==")
        version = metadata.version(name) if "://" in rest else rest
        pins.append(f"{name}=={re.sub(r'[+].*', '', version)}\n")
    lines = sorted(pins, key=lambda pin: normal(pin.split("==")[0]))
    return "".join([HEADER, *lines, KEPT_HEADER, *(f"{name}=={version}\n" for name, version in kept.items())])


if __name__ == "__main__":
    sys.exit(main())
