"""`models.path` gives a whole, current file: never a stale, broken or half-written one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from labsupport import models
from labsupport.anatomy import ModelShape, gguf_header, model_sheet, shape_of
from labsupport.anatomy.gguf_recipes import bits_per_weight, gguf_weight_bytes
from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.cli import main
from labsupport.errors import LabsupportError
from labsupport.models import catalogue, checksums, store
from labsupport.models.cache import DiskFullError, appearing
from labsupport.models.catalogue import Entry
from labsupport.models.verify import bundled_files, verify
from tests.models.hub_server import COMMIT, FakeHub, serving
from tests.models.llama import opened


def retrain(checkpoint: Path) -> None:
    raw = bytearray((checkpoint / "model.safetensors").read_bytes())
    raw[-2:] = b"\x00\x3f"
    (checkpoint / "model.safetensors").write_bytes(raw)


def flip_a_bit(file: Path, position: int = -1) -> None:
    raw = bytearray(file.read_bytes())
    raw[position] ^= 1
    file.write_bytes(raw)


@pytest.mark.parametrize("quant", models.QUANTS)
def test_a_quantized_file_is_as_large_as_the_arithmetic_says(quant: str, in_shared_cache: Path) -> None:
    header = gguf_header.read(models.path("pocket", quant))
    assert header.weight_bytes == gguf_weight_bytes(shape_of(models.checkpoint("pocket")), quant)


def test_a_recipe_named_two_or_four_bits_takes_more() -> None:
    shape = model_sheet("llama-3.1-8b").shape
    assert 2.5 < bits_per_weight(shape, "q2_k") < 3.5
    assert 4.5 < bits_per_weight(shape, "q4_k_m") < 5.0
    assert bits_per_weight(shape, "q8_0") == pytest.approx(8.5, abs=0.01)


def test_a_file_is_made_once(own_cache: Path) -> None:
    first = models.path("pocket", "q8_0")
    made = first.stat().st_mtime_ns
    assert models.path("pocket", "Q8_0") == first
    assert first.stat().st_mtime_ns == made
    assert [file for file in first.parent.iterdir() if file.suffix == ".16bit"] == []


def test_a_vocabulary_is_made_once_and_without_weights(own_cache: Path) -> None:
    file = models.vocabulary("pocket")
    header = gguf_header.read(file)
    assert header.tensors == ()
    assert "tokenizer.chat_template" in header.metadata
    made = file.stat().st_mtime_ns
    assert models.vocabulary("pocket").stat().st_mtime_ns == made
    with pytest.raises(LabsupportError, match="random numbers"):
        models.vocabulary("synthetic-0.3b")


def test_retrained_weights_are_not_served_stale(own_cache: Path, own_pocket: Path) -> None:
    before = models.path(str(own_pocket), "bf16")
    content = before.read_bytes()
    retrain(own_pocket)
    after = models.path(str(own_pocket), "bf16")
    assert after != before
    assert after.read_bytes() != content


def test_what_was_made_of_earlier_weights_is_removed(own_cache: Path, own_pocket: Path) -> None:
    other = models.path("pocket", "bf16")
    old = [models.path(str(own_pocket), quant) for quant in ("bf16", "q8_0")]
    old[0].write_bytes(b"")
    models.path(str(own_pocket), "bf16")  # sets a broken file aside, of the earlier weights too
    retrain(own_pocket)
    with old[1].open("rb") as in_use:
        new = models.path(str(own_pocket), "bf16")
        assert in_use.read(4) == b"GGUF"
    digest = new.name.partition("-")[0]
    left = {file.name for file in new.parent.iterdir() if file.suffix != ".lock"}
    assert left == {new.name, f"{new.name}.json"}
    assert all(not file.name.startswith(digest) for file in old)
    assert models.path(str(own_pocket), "q8_0").parent == new.parent
    assert new.exists()  # another quantization of the same weights is not stale
    assert other.exists()


def test_what_another_process_is_making_is_not_removed(own_cache: Path, own_pocket: Path) -> None:
    old = models.path(str(own_pocket), "bf16")
    retrain(own_pocket)
    with FileLock(f"{old}.lock"):
        models.path(str(own_pocket), "bf16")
    assert old.exists()


@pytest.mark.parametrize("change", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_changed_template_or_tokenizer_makes_a_new_file(
    own_cache: Path, own_pocket: Path, change: str
) -> None:
    before = models.path(str(own_pocket), "bf16")
    (own_pocket / change).write_text((own_pocket / change).read_text() + " ")
    assert models.path(str(own_pocket), "bf16") != before


def test_a_truncated_file_in_the_cache_is_set_aside_and_made_again(own_cache: Path) -> None:
    product = models.path("pocket", "q8_0")
    whole = product.read_bytes()
    product.write_bytes(whole[: len(whole) // 2])
    assert models.path("pocket", "q8_0").read_bytes() == whole
    assert product.with_name(product.name + ".broken").exists()


def test_a_file_with_one_bit_changed_is_set_aside_and_made_again(
    own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    product = models.path("pocket", "q8_0")
    whole = product.read_bytes()
    flip_a_bit(product)
    gguf_header.read(product)  # length and header are as they were
    assert models.path("pocket", "q8_0").read_bytes() == whole
    assert product.with_name(product.name + ".broken").exists()
    assert "making it again" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["", "{}", "[]", '{"sha256": 7}'])
def test_a_file_whose_record_is_lost_is_made_again(own_cache: Path, left: str) -> None:
    product = models.path("pocket", "q8_0")
    record = product.with_name(product.name + ".json")
    kept = json.loads(record.read_text())["sha256"]
    record.write_text(left)
    assert models.path("pocket", "q8_0") == product
    assert json.loads(record.read_text())["sha256"] == kept


def test_a_large_file_is_read_once_and_again_only_when_it_changed(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = models.path("pocket", "q8_0")
    monkeypatch.setattr(checksums, "READ_EACH_TIME_BYTES", 1000)
    read: list[Path] = []
    sha256_of = checksums.sha256_of
    monkeypatch.setattr(checksums, "sha256_of", lambda file: read.append(file) or sha256_of(file))

    def reads() -> int:
        read.clear()
        assert models.path("pocket", "q8_0") == product
        return read.count(product)

    assert reads() == 0  # it was read when it was made
    os.utime(product, ns=(0, 0))
    assert reads() == 1
    assert reads() == 0
    whole = product.read_bytes()
    flip_a_bit(product)
    assert models.path("pocket", "q8_0").read_bytes() == whole


@pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_bundled_files_that_changed_are_refused_with_the_command_that_brings_them_back(
    own_cache: Path, own_pocket: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    monkeypatch.setattr(store, "BUNDLED_WEIGHTS", own_pocket)
    assert models.checkpoint("pocket") == own_pocket
    models.path("pocket", "q8_0")

    flip_a_bit(own_pocket / damaged)

    refusal = rf"{damaged}: its SHA-256 is [\s\S]*git checkout -- '{own_pocket}'"
    for ask in (models.checkpoint, models.path):
        with pytest.raises(ModelFileError, match=refusal):
            ask("pocket")
    (own_pocket / damaged).unlink()
    with pytest.raises(ModelFileError, match=rf"{damaged}: there is no such file[\s\S]*git checkout"):
        models.checkpoint("pocket")


def test_verify_finds_a_changed_byte_in_a_made_file(own_cache: Path) -> None:
    product = models.path("pocket", "q8_0")
    assert [check.problem for check in verify("pocket") if check.file == product] == [""]
    raw = bytearray(product.read_bytes())
    raw[-1] ^= 1
    product.write_bytes(raw)
    (fault,) = [check for check in verify("pocket") if check.file == product]
    assert "SHA-256" in fault.problem


def test_bundled_files_are_held_against_their_checksums(own_pocket: Path) -> None:
    (own_pocket / "checksums.txt").write_text("ab12  config.json\ncd34 *gone.json\n")
    listed = {file.name: sha256 for file, sha256 in bundled_files(own_pocket).items()}
    assert listed["config.json"] == "ab12"
    assert listed["gone.json"] == "cd34"
    assert listed["model.safetensors"] == ""


def test_processes_that_ask_at_once_get_the_same_whole_file(own_cache: Path) -> None:
    code = "from labsupport import models; print(models.path('pocket', 'q8_0').read_bytes().__hash__())"
    environment = {**os.environ, "PYTHONHASHSEED": "0", "LABSUPPORT_CACHE": str(own_cache)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
        for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    assert {file.suffix for file in (own_cache / "gguf" / "pocket").iterdir()} == {".gguf", ".json", ".lock"}


def test_a_full_disk_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"

    def write() -> None:
        with appearing(target) as unfinished:
            unfinished.symlink_to("/dev/full")  # every write fails with "no space left"
            unfinished.write_bytes(b"weights")

    with pytest.raises(DiskFullError, match="is full"):
        write()
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Made:
    """A product that was made once and removed, so that its name is known."""

    product: Path

    def fill_the_disk_at(self, ending: str) -> None:
        """Every write to the file beside the product with this ending fails with "no space left"."""
        self.product.with_name(self.product.name + ending).symlink_to("/dev/full")

    def left(self) -> set[str]:
        return {file.suffix for file in self.product.parent.iterdir()}


@pytest.fixture
def removed(own_cache: Path) -> Made:
    product = models.path("pocket", "q8_0")
    product.unlink()
    checksums.record_of(product).unlink()
    return Made(product)


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(".16bit", id="converting"),
        pytest.param(".unfinished", id="quantizing"),
        pytest.param(".json.unfinished", id="noting the checksum"),
    ],
)
def test_a_disk_that_fills_up_while_a_file_is_made_is_explained(removed: Made, ending: str) -> None:
    removed.fill_the_disk_at(ending)
    with pytest.raises(DiskFullError, match=r"is full[\s\S]*LABSUPPORT_CACHE"):
        models.path("pocket", "q8_0")
    assert removed.left() == {".lock"}
    assert models.path("pocket", "q8_0") == removed.product


def test_too_little_room_for_a_model_is_seen_before_it_is_made(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    with pytest.raises(DiskFullError, match=r"This needs .* GB of disk, and .* has 0\.0 GB free"):
        models.path("pocket", "q8_0")
    assert {file.suffix for file in own_cache.rglob("*") if file.is_file()} <= {".lock"}


def test_a_failure_leaves_nothing_that_looks_finished(own_cache: Path, own_pocket: Path) -> None:
    (own_pocket / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFileError):
        models.path(str(own_pocket), "q4_k_m")
    assert {file.suffix for file in own_cache.rglob("*") if file.is_file()} <= {".lock"}


def test_a_gguf_file_is_taken_as_it_is_and_a_broken_one_refused(own_cache: Path, tmp_path: Path) -> None:
    product = models.path("pocket", "q8_0")
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(product.read_bytes())
    assert models.path(str(mine), "q2_k") == mine
    mine.write_bytes(product.read_bytes()[:-5_000])
    with pytest.raises(ModelFileError, match="truncated"):
        models.path(str(mine))
    with pytest.raises(ModelFileError, match="no such file"):
        models.path(str(tmp_path / "nowhere.gguf"))


def test_unknown_names_list_what_exists(own_cache: Path) -> None:
    with pytest.raises(
        LabsupportError, match=r"no model 'gpt-9'[\s\S]*pocket, qwen3-0\.6b[\s\S]*models list"
    ):
        models.path("gpt-9")
    with pytest.raises(LabsupportError, match=r"no quantization 'q3'[\s\S]*q4_k_m"):
        models.path("pocket", "q3")
    with pytest.raises(LabsupportError, match="random numbers"):
        models.checkpoint("synthetic-8b")


def command(
    *words: str, cache: Path, hub: str = "http://127.0.0.1:9", file_bytes: int = resource.RLIM_INFINITY
) -> subprocess.CompletedProcess[str]:
    """`labsupport models …`, with this hub, and no file larger than `file_bytes`."""
    return subprocess.run(
        [sys.executable, "-m", "labsupport", "models", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "LABSUPPORT_CACHE": str(cache), "HF_ENDPOINT": hub},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY)),
    )


def test_the_command_line_lists_makes_and_verifies(own_cache: Path) -> None:
    made = command("path", "pocket", "--quant", "bf16", cache=own_cache)
    assert made.returncode == 0, made.stderr
    product = Path(made.stdout.strip())
    assert gguf_header.read(product).architecture == "llama"

    rows = {row["name"]: row for row in json.loads(command("list", "--json", cache=own_cache).stdout)}
    assert rows["pocket"]["cached"] == ["bf16"]
    assert rows["qwen3-0.6b"]["state"] == "unpinned"

    assert command("verify", "pocket", cache=own_cache).returncode == 0
    product.write_bytes(product.read_bytes()[:100])
    found = command("verify", "pocket", "--json", cache=own_cache)
    assert found.returncode == 1
    assert [check["file"] for check in json.loads(found.stdout) if not check["ok"]] == [str(product)]


def test_the_command_line_explains_a_pull_without_network(own_cache: Path) -> None:
    failed = command("pull", "qwen3-0.6b", cache=own_cache)
    assert failed.returncode == 1
    assert "unpinned" in failed.stderr
    assert "What to do: Connect to the network" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_command_line_explains_a_write_that_was_cut_short(own_cache: Path) -> None:
    failed = command("path", "pocket", "--quant", "bf16", cache=own_cache, file_bytes=4_000_000)
    assert failed.returncode == 1
    assert "is full, or a limit on its use is reached" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert {file.suffix for file in own_cache.rglob("*") if file.is_file()} == {".lock"}


@pytest.fixture
def small_hub(own_pocket: Path) -> Iterator[FakeHub]:
    """A hub whose every repository holds the pocket model."""
    files = {file.name: file.read_bytes() for file in own_pocket.iterdir()}
    with serving(FakeHub(files)) as running:
        yield running


def test_the_command_line_pins_and_pulls(own_cache: Path, small_hub: FakeHub) -> None:
    pinned = command("pin", "qwen3-0.6b", "--json", cache=own_cache, hub=small_hub.url)
    assert pinned.returncode == 0, pinned.stderr
    pin = json.loads(pinned.stdout)
    assert pin["revision"] == COMMIT
    assert (
        pin["files"]["model.safetensors"]
        == checksums.bundled_files()[catalogue.BUNDLED_WEIGHTS / "model.safetensors"]
    )
    printed = command("pin", "qwen3-0.6b", cache=own_cache, hub=small_hub.url).stdout
    assert f"qwen3-0.6b is pinned to {COMMIT}" in printed
    assert all(f"{sha256}  {file}" in printed for file, sha256 in pin["files"].items())

    pulled = command("pull", "qwen3-0.6b", cache=own_cache, hub=small_hub.url)
    assert pulled.returncode == 0, pulled.stderr
    folder = Path(pulled.stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == small_hub.files["model.safetensors"]
    assert "(100%)" in pulled.stderr
    again = command("pull", "qwen3-0.6b", cache=own_cache)  # no network any more
    assert (again.returncode, again.stdout) == (0, pulled.stdout)


def test_a_pulled_file_that_changed_is_refused_and_comes_back_once_it_is_deleted(
    own_cache: Path, small_hub: FakeHub
) -> None:
    folder = Path(command("pull", "qwen3-0.6b", cache=own_cache, hub=small_hub.url).stdout.strip())
    weights = folder / "model.safetensors"
    flip_a_bit(weights)
    refused = command("path", "qwen3-0.6b", cache=own_cache, hub=small_hub.url)
    assert refused.returncode == 1
    assert f"{weights}: its SHA-256 is" in refused.stderr
    assert f"rm '{weights}'" in refused.stderr

    weights.unlink()
    made = command("path", "qwen3-0.6b", cache=own_cache, hub=small_hub.url)
    assert made.returncode == 0, made.stderr
    assert gguf_header.read(Path(made.stdout.strip())).architecture == "llama"


def test_a_synthetic_model_is_made_by_its_name(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ModelShape(
        layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=512, vocabulary=1000, context=512
    )
    sheet = replace(model_sheet("synthetic-0.3b"), name="tiny", shape=shape)
    entries = {"synthetic-tiny": Entry(name="synthetic-tiny", kind="synthetic", summary="", sheet="tiny")}
    for module in (catalogue, store):
        monkeypatch.setattr(module, "entries", lambda: entries)
    monkeypatch.setattr(store, "model_sheet", {"tiny": sheet}.__getitem__)

    products = []
    for quant in ("bf16", "q4_k_m"):
        assert main(["models", "path", "synthetic-tiny", "--quant", quant]) == 0
        products.append(Path(capsys.readouterr().out.strip()))
        assert products[-1].parent == own_cache / "gguf" / "synthetic-tiny"
        assert shape_of(products[-1]) == shape
        assert gguf_header.read(products[-1]).weight_bytes == gguf_weight_bytes(shape, quant)
    with opened(products[-1]) as model:
        assert model.n_vocab() == shape.vocabulary
    made = products[-1].stat().st_mtime_ns
    assert models.path("synthetic-tiny") == products[-1]
    assert products[-1].stat().st_mtime_ns == made
