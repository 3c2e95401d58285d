"""Check that the files on this computer are those that were bundled, pulled or made: headers and SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labsupport.anatomy import gguf_header, safetensors_header
from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.models.catalogue import entry
from labsupport.models.checksums import CHECKSUMS, bundled_files, recorded_sha256, require_unchanged
from labsupport.models.pull import manifest_files
from labsupport.models.store import cached


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
    checks += [_check(file, recorded_sha256(file), "the record of its making") for file in cached(name)]
    return checks


def _check(file: Path, sha256: str, against: str) -> Checked:
    try:
        if file.suffix == ".gguf":
            gguf_header.read(file)
        elif file.suffix == ".safetensors":
            safetensors_header.read(file)
        require_unchanged(file, sha256)
    except ModelFileError as error:
        return Checked(file, against, error.problem)
    if not sha256:
        return Checked(file, "its header" if file.suffix in (".gguf", ".safetensors") else "")
    return Checked(file, against)
