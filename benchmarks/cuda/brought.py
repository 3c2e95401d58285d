"""What was brought along to a machine without a network: wheels, and llama.cpp's sources.

`python -m benchmarks.cuda.bring` fills the folder where there is a network. Here a package that is missing is
unpacked from its wheel, which is a zip file of what pip would install, into a folder for PYTHONPATH: nothing
is installed, and a package that is there already is left alone.
"""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from labsupport.errors import LabsupportError

BROUGHT = Path(__file__).parents[2] / ".brought"
MODULES = {"msgspec": "msgspec", "bitsandbytes": "bitsandbytes", "gguf": "gguf", "diskcache": "diskcache"}
"""Packages that a machine with torch and transformers may lack, and what each is imported as."""
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE, WHEELS, SOURCES, BINDING = "site", "wheels", "llama.cpp", "binding"


def best_wheel(package: str, folder: Path) -> Path | None:
    """The newest wheel of a package in a folder that this interpreter can use."""
    usable, found = set(sys_tags()), []
    for file in folder.glob("*.whl"):
        try:
            name, version, _, tags = parse_wheel_filename(file.name)
        except InvalidWheelFilename:
            continue
        if name == canonicalize_name(package) and tags & usable:
            found.append((version, file))
    return max(found)[1] if found else None


def unpack_missing(packages: tuple[str, ...], brought: Path) -> list[Path]:
    """Make the packages that are not installed importable; folders for PYTHONPATH, in order.

    Raises LabsupportError, with the names, if some are neither installed nor brought.
    """
    site, lacking = brought / SITE, []
    for package in packages:
        if importlib.util.find_spec(MODULES[package]) or (site / MODULES[package]).is_dir():
            continue
        if wheel := best_wheel(package, brought / WHEELS):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        else:
            lacking.append(package)
    if lacking:
        raise LabsupportError(
            f"not installed here, nor brought in a wheel that fits: {', '.join(lacking)}",
            allowed=f"a wheel for this Python in {brought.name}/{WHEELS}",
            remedy=f"Where there is a network: python -m benchmarks.cuda.bring --python {_PYTHON}",
        )
    return [site] if site.is_dir() else []


def llama_sources(brought: Path) -> Path | None:
    """The folder with llama.cpp's `src`, `include` and `ggml`, if it was brought."""
    sources = brought / SOURCES
    return sources if (sources / "src" / "CMakeLists.txt").is_file() else None
