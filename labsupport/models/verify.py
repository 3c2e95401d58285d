"""Check that the files on this computer are those that were bundled, pulled or made: headers and SHA-256."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from labsupport.anatomy import gguf_header, safetensors_header
from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.models.cache import sha256_of
from labsupport.models.catalogue import BUNDLED_WEIGHTS, entry
from labsupport.models.pull import manifest_files
from labsupport.models.store import cached, record_of

CHECKSUMS = "checksums.txt"  # of the bundled weights, as `sha256sum` prints it


@dataclass(frozen=True)
class Checked:
    """One file, what it was compared with ("" if there was nothing), and what is wrong ("" if nothing is)."""

    file: Path
    against: str
    problem: str = ""


def verify(name: str) -> list[Checked]:
    """Check every file that this computer has of a model; an empty list if it has none."""
    found = entry(name)
    checks = [_check(file, sha256, "its pin") for file, sha256 in manifest_files(name).items()]
    if found.kind == "bundled":
        checks += [_check(file, sha256, CHECKSUMS) for file, sha256 in bundled_files().items()]
    checks += [_check(file, _recorded(file), "the record of its making") for file in cached(name)]
    return checks


def bundled_files(folder: Path = BUNDLED_WEIGHTS) -> dict[Path, str]:
    """The bundled files with the SHA-256 that `checksums.txt` gives; "" for a file that it does not list."""
    sums = folder / CHECKSUMS
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
    listed = {words[1].lstrip("*"): words[0] for words in map(str.split, lines) if len(words) == 2}
    present = {file.name for file in folder.iterdir() if file.suffix in (".json", ".jinja", ".safetensors")}
    return {folder / each: listed.get(each, "") for each in sorted(present | set(listed))}


def _check(file: Path, sha256: str, against: str) -> Checked:
    try:
        if file.suffix == ".gguf":
            gguf_header.read(file)
        elif file.suffix == ".safetensors":
            safetensors_header.read(file)
        elif not file.is_file():
            raise ModelFileError(file, "there is no such file.")
    except ModelFileError as error:
        return Checked(file, against, error.problem)
    if not sha256:
        return Checked(file, "its header" if file.suffix in (".gguf", ".safetensors") else "")
    actual = sha256_of(file)
    if actual != sha256:
        return Checked(file, against, f"{file}: its SHA-256 is {actual}, but should be {sha256}.")
    return Checked(file, against)


def _recorded(product: Path) -> str:
    """The SHA-256 noted when a GGUF file was made, or "" if no note is left."""
    try:
        return str(json.loads(record_of(product).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
