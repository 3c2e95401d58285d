"""Pull a model of the hub into the cache: its pinned revision, checked by file, resumed where it broke off.

Right means: a directory that `pull` returns holds every file of the pinned commit with the SHA-256 that the
pin says; an interrupted pull leaves only `.part` files, which the next one goes on from.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from labsupport.errors import LabsupportError
from labsupport.models.cache import appearing, cache_directory, locked, require_free
from labsupport.models.catalogue import Entry, entries, entry
from labsupport.models.hub import ChecksumError, Hub, HubError, RemoteFile, Revision
from labsupport.models.pins import Pin, pin_of, record_pin

Progress = Callable[[str, int, int], None]
"""Called with (file, bytes present, bytes in all)."""

MANIFEST = "pulled.json"
_WANTED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)


def pull(name: str, *, hub: Hub | None = None, progress: Progress | None = None) -> Path:
    """The directory of a hub model, pulled if it is not complete in the cache.

    A model that has no pin is pinned first, and said to be. Raises `HubError` when the network fails,
    `ChecksumError` when a file is not the pinned one, `DiskFullError` when there is no room.
    """
    found = _hub_entry(name)
    pin = pin_of(name)
    if pin is not None and _is_complete(folder := _folder(name, pin.revision), pin):
        return folder
    own = hub or Hub()
    try:
        if pin is None:
            pin = first_contact(name, hub=own)
        folder = _folder(name, pin.revision)
        with locked(folder):
            if not _is_complete(folder, pin):
                _pull_files(found.repository, pin, folder, own, progress or print_progress)
        return folder
    finally:
        if hub is None:
            own.close()


def first_contact(name: str, *, hub: Hub | None = None, revision: str = "main") -> Pin:
    """Ask the hub what `revision` is now, and record commit and SHA-256 of each file that the course needs.

    The hub knows the SHA-256 of weights; small files are fetched for it. A pin that exists is replaced:
    this is how to move to a newer revision on purpose.
    """
    found = _hub_entry(name)
    own = hub or Hub()
    try:
        if found.revision:
            revision = found.revision
        else:
            print(f"{name} is unpinned: recording what the hub gives now as its revision.", file=sys.stderr)
        seen = own.revision(found.repository, revision)
        files = _needed(found.repository, seen)
        folder = _folder(name, seen.commit)
        with locked(folder):
            hashes = {
                file.name: file.sha256 or _fetch(own, found.repository, seen, file, folder) for file in files
            }
        for file, expected in found.files.items():
            if hashes.get(file) != expected:
                raise ChecksumError(
                    f"{file} of {name} has SHA-256 {hashes.get(file)} at the hub.",
                    allowed=f"{expected}, as the catalogue says",
                    remedy="Do not use it; report it to the course's authors.",
                )
        sizes = {file.name: file.size for file in files}
        return record_pin(name, revision=seen.commit, files=hashes, sizes=sizes)
    finally:
        if hub is None:
            own.close()


def manifest_files(name: str) -> dict[Path, str]:
    """The files that a completed pull left, with the SHA-256 that each must have; empty if there is none."""
    pin = pin_of(name)
    if pin is None or not (_folder(name, pin.revision) / MANIFEST).is_file():
        return {}
    return {_folder(name, pin.revision) / file: sha256 for file, sha256 in pin.files.items()}


def _hub_entry(name: str) -> Entry:
    found = entry(name)
    if found.kind != "hub":
        hubs = ", ".join(each.name for each in entries().values() if each.kind == "hub")
        raise LabsupportError(f"{name} is {found.kind}: there is nothing to pull or pin.", allowed=hubs)
    return found


def _folder(name: str, revision: str) -> Path:
    return cache_directory() / "checkpoints" / name / revision


def _is_complete(folder: Path, pin: Pin) -> bool:
    """Whether a pull ended here and nothing was deleted since."""
    return all((folder / file).is_file() for file in (MANIFEST, *pin.files))


def _needed(repository: str, seen: Revision) -> list[RemoteFile]:
    """The files of a revision that the course uses; raises if it holds no safetensors weights."""
    files = [file for file in seen.files if file.name in _WANTED or _is_weights(file.name)]
    if not any(_is_weights(file.name) for file in files):
        raise HubError(f"{repository} holds no .safetensors weights at {seen.commit}.")
    return files


def _is_weights(name: str) -> bool:
    # No "/" either: a name from the network must not choose where a file is written.
    return name.endswith(".safetensors") and "/" not in name and "\\" not in name


def _fetch(hub: Hub, repository: str, seen: Revision, file: RemoteFile, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return hub.download(repository, seen.commit, file, folder / file.name)


def _pull_files(repository: str, pin: Pin, folder: Path, hub: Hub, progress: Progress) -> None:
    files = [RemoteFile(name, pin.sizes[name], sha256) for name, sha256 in pin.files.items()]
    missing = [file for file in files if not (folder / file.name).is_file()]
    total = sum(file.size for file in files)
    present = sum((folder / file.name).stat().st_size for file in files if file not in missing)
    parts = [folder / f"{file.name}.part" for file in missing]
    started = sum(part.stat().st_size for part in parts if part.is_file())
    require_free(folder, total - present - started)
    for file in missing:

        def report(received: int, file: RemoteFile = file, before: int = present) -> None:
            progress(file.name, before + received, total)

        hub.download(repository, pin.revision, file, folder / file.name, report)
        present += file.size
    with appearing(folder / MANIFEST) as unfinished:
        unfinished.write_text(json.dumps({"repository": repository, "files": pin.files}, indent=1) + "\n")


_last_printed = 0.0


def print_progress(file: str, present: int, total: int) -> None:
    """Progress on standard error: one rewritten line on a terminal, a line in ten seconds elsewhere."""
    global _last_printed
    terminal = sys.stderr.isatty()
    now = time.monotonic()
    if present < total and now - _last_printed < (0.2 if terminal else 10):
        return
    _last_printed = now
    line = f"pulling {file}: {present / 1e6:,.0f} of {total / 1e6:,.0f} MB ({present / max(total, 1):.0%})"
    print(line, end="\r" if terminal and present < total else "\n", file=sys.stderr, flush=True)
