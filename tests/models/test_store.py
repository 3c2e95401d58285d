"""`models.path` gives a whole, current file: never a stale, broken or half-written one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labsupport import models
from labsupport.anatomy import gguf_header, model_sheet, shape_of
from labsupport.anatomy.gguf_recipes import bits_per_weight, gguf_weight_bytes
from labsupport.anatomy.model_file_error import ModelFileError
from labsupport.errors import LabsupportError
from labsupport.models.cache import DiskFullError, appearing
from labsupport.models.verify import bundled_files, verify


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


def test_retrained_weights_are_not_served_stale(own_cache: Path, own_pocket: Path) -> None:
    before = models.path(str(own_pocket), "bf16")
    raw = bytearray((own_pocket / "model.safetensors").read_bytes())
    raw[-2:] = b"\x00\x3f"
    (own_pocket / "model.safetensors").write_bytes(raw)
    after = models.path(str(own_pocket), "bf16")
    assert after != before
    assert after.read_bytes() != before.read_bytes()


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


def command(*words: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "labsupport", "models", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "LABSUPPORT_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"},
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
