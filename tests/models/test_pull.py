"""A pull ends with the pinned bytes or an error that says what to do; nothing in between looks finished."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.errors import LabsupportError
from labsupport.models import catalogue
from labsupport.models.cache import DiskFullError
from labsupport.models.catalogue import Entry
from labsupport.models.hub import ChecksumError, Hub, HubError
from labsupport.models.pins import pin_of, pins_file
from labsupport.models.pull import first_contact, pull
from labsupport.models.verify import verify
from tests.models.hub_server import COMMIT, FakeHub, serving

WEIGHTS = random.Random(7).randbytes(300_000)


def promised(weights: bytes = WEIGHTS) -> dict[str, bytes]:
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": weights,
        "README.md": b"not needed",
        "../escape.safetensors": b"a name that must not choose where it is written",
    }


@pytest.fixture(autouse=True)
def small_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABSUPPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    entries = {
        **catalogue.entries(),
        "tiny": Entry(name="tiny", kind="hub", summary="", repository="course/tiny"),
    }
    monkeypatch.setattr(catalogue, "entries", lambda: entries)
    monkeypatch.setattr("labsupport.models.pull.entries", lambda: entries)
    return tmp_path / "cache"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serving(FakeHub(promised())) as running:
        yield running


def client(hub: FakeHub) -> Hub:
    return Hub(hub.url, retry_seconds=0.01, timeout_seconds=5)


def ranges(hub: FakeHub) -> list[str]:
    return [asked for path, asked in hub.requests if path.endswith("model.safetensors")]


def test_pull_brings_what_is_needed_and_pins_it(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = pull("tiny", hub=client(hub), progress=lambda *step: seen.append(step))

    assert folder.name == COMMIT
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "tokenizer.json", "model.safetensors", "pulled.json",
    }  # fmt: skip
    assert "unpinned" in capsys.readouterr().err
    pin = pin_of("tiny")
    assert pin is not None
    assert pin.revision == COMMIT
    needed = ("config.json", "tokenizer.json", "model.safetensors")
    assert pin.files == {name: hashlib.sha256(promised()[name]).hexdigest() for name in needed}
    total = sum(pin.sizes.values())
    assert seen[-1] == ("model.safetensors", total, total)


def test_a_complete_pull_asks_the_network_nothing_more(hub: FakeHub) -> None:
    pull("tiny", hub=client(hub))
    hub.requests.clear()
    pull("tiny", hub=client(hub))
    assert hub.requests == []


def test_a_connection_that_breaks_half_way_is_resumed_where_it_broke(hub: FakeHub) -> None:
    hub.break_after = [100_000, 50_000]
    folder = pull("tiny", hub=client(hub))

    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    first, second, third = ranges(hub)
    assert first == ""
    assert 0 < int(second[6:-1]) <= 100_000
    assert int(second[6:-1]) < int(third[6:-1]) <= 150_000


def test_a_line_that_stays_dead_keeps_what_came_and_the_next_pull_goes_on(hub: FakeHub) -> None:
    hub.break_after = [100_000] + [0] * 50
    with pytest.raises(
        HubError, match=r"broke off model\.safetensors after [\d,]+ bytes[\s\S]*goes on from there"
    ):
        pull("tiny", hub=client(hub))
    (part,) = (pins_file().parent / "checkpoints").rglob("*.part")
    assert 0 < part.stat().st_size <= 100_000
    assert not part.with_name("model.safetensors").exists()

    hub.break_after = []
    hub.requests.clear()
    begun = part.stat().st_size
    folder = pull("tiny", hub=client(hub))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert ranges(hub) == [f"bytes={begun}-"]


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(hub: FakeHub) -> None:
    hub.ignores_range = True
    hub.break_after = [100_000]
    assert (pull("tiny", hub=client(hub)) / "model.safetensors").read_bytes() == WEIGHTS


def test_redirects_are_followed_and_the_token_stays_at_home(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.redirects = True
    hub.break_after = [100_000]
    assert (pull("tiny", hub=client(hub)) / "model.safetensors").read_bytes() == WEIGHTS
    elsewhere = [path.startswith("/store/") for path, _ in hub.requests]
    assert any(elsewhere)
    for away, authorization in zip(elsewhere, hub.authorizations, strict=True):
        assert authorization == ("" if away else "Bearer secret")


@pytest.mark.parametrize("wrong", [WEIGHTS[::-1], WEIGHTS + b"more"])
def test_wrong_bytes_are_refused_and_removed(hub: FakeHub, wrong: bytes) -> None:
    hub.wrong_bytes = wrong
    with pytest.raises(ChecksumError, match="it was removed"):
        pull("tiny", hub=client(hub))
    assert not list((pins_file().parent / "checkpoints").rglob("model*"))


def test_a_wrong_small_file_is_refused_by_its_git_hash(hub: FakeHub) -> None:
    broken = json.loads(hub.listing())
    broken["siblings"][1]["blobId"] = "f" * 40
    hub.listing = lambda: json.dumps(broken).encode()  # type: ignore[method-assign]
    with pytest.raises(ChecksumError, match=r"tokenizer\.json came with SHA-256"):
        pull("tiny", hub=client(hub))


def test_weights_that_changed_since_they_were_pinned_are_refused(hub: FakeHub) -> None:
    first_contact("tiny", hub=client(hub))
    hub.files["model.safetensors"] = WEIGHTS[::-1]
    with pytest.raises(ChecksumError, match="not the one promised; it was removed"):
        pull("tiny", hub=client(hub))


def test_a_hash_in_the_catalogue_is_held_against_the_hub(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = Entry(
        name="tiny", kind="hub", summary="", repository="course/tiny", revision=COMMIT,
        files={"model.safetensors": "0" * 64},
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "entries", lambda: {"tiny": pinned})
    with pytest.raises(ChecksumError, match="as the catalogue says"):
        pull("tiny", hub=client(hub))
    assert pin_of("tiny") is None


def test_no_network_says_what_to_do_instead() -> None:
    with pytest.raises(HubError, match=r"cannot be reached[\s\S]*HF_ENDPOINT[\s\S]*LABSUPPORT_MODEL=pocket"):
        pull("tiny", hub=Hub("http://127.0.0.1:9", retry_seconds=0.01))


@pytest.mark.parametrize(
    ("status", "said"), [(404, "does not have"), (403, "HF_TOKEN"), (401, "HF_TOKEN"), (503, "status 503")]
)
def test_each_refusal_of_the_hub_has_its_own_message(hub: FakeHub, status: int, said: str) -> None:
    hub.status = status
    with pytest.raises(HubError, match=said):
        pull("tiny", hub=client(hub))


def test_a_page_that_is_no_hub_is_named(hub: FakeHub) -> None:
    hub.listing = lambda: b"<html>log in to the hotel's network</html>"  # type: ignore[method-assign]
    with pytest.raises(HubError, match="did not answer as the Hugging Face hub does"):
        pull("tiny", hub=client(hub))


def test_a_repository_without_weights_is_named(hub: FakeHub) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(HubError, match=r"no \.safetensors weights"):
        pull("tiny", hub=client(hub))


def test_too_little_disk_is_seen_before_anything_large_is_pulled(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    with pytest.raises(DiskFullError, match="LABSUPPORT_CACHE"):
        pull("tiny", hub=client(hub))
    assert ranges(hub) == []


def test_a_disk_that_fills_up_during_a_pull_is_explained(hub: FakeHub, small_cache: Path) -> None:
    first_contact("tiny", hub=client(hub))
    folder = small_cache / "checkpoints" / "tiny" / COMMIT
    (folder / "model.safetensors.part").symlink_to("/dev/full")  # every write fails with "no space left"
    with pytest.raises(DiskFullError, match="is full"):
        pull("tiny", hub=client(hub))
    assert not (folder / "pulled.json").exists()


def test_verify_finds_a_byte_that_changed_after_the_pull(hub: FakeHub) -> None:
    folder = pull("tiny", hub=client(hub))
    (folder / "tokenizer.json").write_bytes(b"[]")
    faults = [check for check in verify("tiny") if check.problem]
    assert {fault.file.name for fault in faults} == {"tokenizer.json", "model.safetensors"}
    assert any("SHA-256" in fault.problem for fault in faults)
    assert any("safetensors" in fault.problem for fault in faults)  # random bytes have no header


def test_only_hub_models_can_be_pulled() -> None:
    with pytest.raises(LabsupportError, match=r"pocket is bundled[\s\S]*tiny"):
        pull("pocket")
    with pytest.raises(LabsupportError, match=r"no model 'gpt-9'[\s\S]*pocket"):
        pull("gpt-9")


def test_a_broken_pins_file_is_named(hub: FakeHub) -> None:
    pins_file().parent.mkdir(parents=True)
    pins_file().write_text("{")
    with pytest.raises(ModelFileError, match=r"pins\.json: it is not valid JSON"):
        pull("tiny", hub=client(hub))
