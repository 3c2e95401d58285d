"""Whether a file still holds the bytes that were bundled, pulled or made: the SHA-256 that was noted of it.

A changed byte inside a tensor leaves length and header as they were, and the model still answers, wrongly.
Only a checksum sees it. Right means: what is served was compared with its note since it last changed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.errors import LabsupportError
from labsupport.models.cache import appearing, sha256_of
from labsupport.models.catalogue import BUNDLED_WEIGHTS

CHECKSUMS = "checksums.txt"  # of the bundled weights, as `sha256sum` prints it
READ_EACH_TIME_BYTES = 100_000_000
"""A made file of up to this size is read at each use; of a larger one, size and time of change are believed
while they are those at which it was last read."""


def record_of(product: Path) -> Path:
    """Where the SHA-256 of a made file is kept."""
    return product.with_name(product.name + ".json")


def record(made: Path, product: Path, *, sha256: str = "") -> None:
    """Note the SHA-256 (read from the file if it is not given) of `made`, which is or becomes `product`."""
    state = made.stat()
    fields = {"sha256": sha256 or sha256_of(made), "bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
    with appearing(record_of(product)) as unfinished:
        unfinished.write_text(json.dumps(fields) + "\n", encoding="utf-8")


def recorded_sha256(product: Path) -> str:
    """The SHA-256 noted when a file was made, or "" if no note is left."""
    return str(_record(product).get("sha256", ""))


def is_as_made(product: Path) -> bool:
    """Whether a made file is there and has the SHA-256 that was noted of it."""
    if not product.is_file():
        return False
    noted, state = _record(product), product.stat()
    large = state.st_size > READ_EACH_TIME_BYTES
    if large and (noted.get("bytes"), noted.get("mtime_ns")) == (state.st_size, state.st_mtime_ns):
        return True
    if sha256_of(product) != noted.get("sha256"):
        return False
    if large:
        with suppress(OSError, LabsupportError):  # a cache that is only read is read again each time
            record(product, product, sha256=noted["sha256"])
    return True


def bundled_files(folder: Path = BUNDLED_WEIGHTS) -> dict[Path, str]:
    """The bundled files with the SHA-256 that `checksums.txt` gives; "" for a file that it does not list."""
    sums = folder / CHECKSUMS
    lines = sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else []
    listed = {words[1].lstrip("*"): words[0] for words in map(str.split, lines) if len(words) == 2}
    present = {file.name for file in folder.iterdir() if file.suffix in (".json", ".jinja", ".safetensors")}
    return {folder / each: listed.get(each, "") for each in sorted(present | set(listed))}


def require_unchanged(file: Path, sha256: str, *, remedy: str = "") -> None:
    """Raise `ModelFileError` if the file is missing or its SHA-256 is not `sha256` ("" if none is known)."""
    if not file.is_file():
        raise ModelFileError(file, "there is no such file.", remedy=remedy)
    if sha256 and (actual := sha256_of(file)) != sha256:
        raise ModelFileError(file, f"its SHA-256 is {actual}, but should be {sha256}.", remedy=remedy)


def _record(product: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record_of(product).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
