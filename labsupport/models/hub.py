"""A client of the Hugging Face hub's HTTP interface: what a revision holds, and one file of it, resumed.

Two addresses are used (https://huggingface.co/docs/hub/api): `/api/models/{repository}/revision/{revision}`
for the commit and its files, and `/{repository}/resolve/{commit}/{file}` for the bytes. `HF_ENDPOINT`
replaces the hub by a mirror, `HF_TOKEN` opens models whose licence must be accepted first.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from labsupport.errors import LabsupportError
from labsupport.models.cache import full_disk_explained

_CHUNK_BYTES = 1 << 20
_ATTEMPTS_WITHOUT_PROGRESS = 4
_RETRIED_STATUS = (408, 429, 500, 502, 503, 504)


class HubError(LabsupportError):
    """The hub could not be reached, or did not give what was asked."""


class ChecksumError(HubError):
    """The bytes that came are not those that were promised; they were thrown away."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a revision. `sha256` is known of large files, `git_sha1` of the others."""

    name: str
    size: int
    sha256: str = ""
    git_sha1: str = ""


@dataclass(frozen=True)
class Revision:
    """One commit of a repository and its files."""

    commit: str
    files: tuple[RemoteFile, ...]


class Hub:
    """The hub at `endpoint` (default `HF_ENDPOINT`, else https://huggingface.co); close it after use.

    `retry_seconds` is the first pause after a failure; it doubles with each one that brings no progress.
    """

    def __init__(
        self, endpoint: str = "", *, retry_seconds: float = 0.5, timeout_seconds: float = 30.0
    ) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        self.retry_seconds = retry_seconds
        token = os.environ.get("HF_TOKEN")
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=timeout_seconds,
            # Without this a proxy may pack the bytes, and neither ranges nor lengths would mean anything.
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {}),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def revision(self, repository: str, revision: str = "main") -> Revision:
        """What `revision` (a branch or a commit) is at this moment."""
        url = f"{self.endpoint}/api/models/{repository}/revision/{revision}"
        for attempt in range(1, _ATTEMPTS_WITHOUT_PROGRESS + 1):
            with self._failures(last=attempt == _ATTEMPTS_WITHOUT_PROGRESS, attempt=attempt):
                response = self._client.get(url, params={"blobs": "true"})
                self._check(response, repository)
                return _parse_revision(response, url)
        raise AssertionError("the last attempt returns or raises")

    def download(
        self,
        repository: str,
        commit: str,
        file: RemoteFile,
        target: Path,
        progress: Callable[[int], None] = lambda received: None,
    ) -> str:
        """Fetch a file to `target` and return its SHA-256.

        The bytes gather in `target` + `.part`, from where a later call goes on. `progress` gets the number of
        bytes present. Raises `ChecksumError` (and removes what came) if the bytes are not those promised.
        """
        part = target.with_name(target.name + ".part")
        url = f"{self.endpoint}/{repository}/resolve/{commit}/{file.name}"
        attempt = 0
        while True:
            before = _size(part)
            if before > file.size:
                part.unlink()
                before = 0
            if before == file.size and part.exists():
                break
            attempt += 1
            with self._failures(last=attempt >= _ATTEMPTS_WITHOUT_PROGRESS, attempt=attempt, part=part):
                self._receive(url, repository, part, file, progress)
            if _size(part) > before:
                attempt = 0
        sha256 = _verified(part, file)
        part.replace(target)
        return sha256

    def _receive(
        self, url: str, repository: str, part: Path, file: RemoteFile, progress: Callable[[int], None]
    ) -> None:
        present = _size(part)
        headers = {"Range": f"bytes={present}-"} if present else {}
        with self._client.stream("GET", url, headers=headers) as response:
            if response.status_code == 416:  # the server does not have the rest we ask for: begin again
                part.unlink(missing_ok=True)
                return
            self._check(response, repository)
            starts_at = f"bytes {present}-"
            given = response.headers.get("Content-Range", "")
            goes_on = response.status_code == 206 and given.startswith(starts_at)
            if not goes_on:  # the server ignored the range and sends the file from its beginning
                present = 0
            with full_disk_explained(part.parent), part.open("ab" if goes_on else "wb") as out:
                for chunk in response.iter_bytes():
                    present += len(chunk)
                    if present > file.size:
                        part.unlink()
                        raise ChecksumError(
                            f"{file.name} goes on after the {file.size:,} bytes promised; it was removed.",
                            remedy="Do not use it: pin the model again if its authors say that it changed.",
                        )
                    out.write(chunk)
                    progress(present)
        if present != file.size:
            raise httpx.RemoteProtocolError(f"{present:,} of {file.size:,} bytes came")

    @contextmanager
    def _failures(self, *, last: bool, attempt: int, part: Path | None = None) -> Iterator[None]:
        """Wait after a failure of the network; after the last one say what to do."""
        try:
            yield
        except httpx.TransportError as error:
            if not last:
                time.sleep(self.retry_seconds * 2 ** (attempt - 1))
                return
            if part is not None and part.exists():
                raise HubError(
                    f"{self.endpoint} broke off {part.stem} after {_size(part):,} bytes ({error}).",
                    remedy="Run the same command again: it goes on from there.",
                ) from None
            raise HubError(
                f"{self.endpoint} cannot be reached ({error or type(error).__name__}).",
                remedy="Connect to the network, or set HF_ENDPOINT to a mirror. With neither, use the "
                "bundled model (LABSUPPORT_MODEL=pocket), or give a model's directory in place of its name.",
            ) from None

    def _check(self, response: httpx.Response, repository: str) -> None:
        status = response.status_code
        if status in _RETRIED_STATUS:
            raise httpx.RemoteProtocolError(f"status {status}")
        if status in (401, 403):
            raise HubError(
                f"{self.endpoint} refuses {repository} (status {status}).",
                remedy="Accept the model's licence on its page, make an access token, set HF_TOKEN to it.",
            )
        if status == 404:
            raise HubError(f"{self.endpoint} does not have {response.request.url.path}.")
        if status not in (200, 206):
            raise HubError(f"{self.endpoint} answered {response.request.url.path} with status {status}.")


def _parse_revision(response: httpx.Response, url: str) -> Revision:
    try:
        content = response.json()
        files = []
        for sibling in content["siblings"]:
            large = sibling.get("lfs") or {}
            size = int(large.get("size") or sibling.get("size") or 0)
            files.append(
                RemoteFile(sibling["rfilename"], size, large.get("sha256", ""), sibling.get("blobId", ""))
            )
        return Revision(str(content["sha"]), tuple(files))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HubError(f"{url} did not answer as the Hugging Face hub does.") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _verified(part: Path, file: RemoteFile) -> str:
    """The SHA-256 of a complete file; a wrong one is removed and refused."""
    sha256 = hashlib.sha256()
    git_sha1 = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)  # how git names a file
    with part.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            sha256.update(chunk)
            git_sha1.update(chunk)
    if file.sha256:
        right = sha256.hexdigest() == file.sha256
    else:
        right = not file.git_sha1 or git_sha1.hexdigest() == file.git_sha1
    if not right:
        part.unlink()
        raise ChecksumError(
            f"{file.name} came with SHA-256 {sha256.hexdigest()}, not the one promised; it was removed.",
            allowed=file.sha256 or f"git object {file.git_sha1}",
            remedy="Try again. If it stays so, the file changed at its source: do not use it.",
        )
    return sha256.hexdigest()
