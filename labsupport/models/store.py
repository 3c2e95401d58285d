"""The two questions that the other rooms ask: where is this model's GGUF file, where is its checkpoint.

A GGUF in the cache carries in its name a digest of what it was made of, so that retrained weights are never
served stale, and beside it a record of its own SHA-256, so that a file that changed is never served at all.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from labsupport.anatomy import gguf_header, model_sheet, parameters, shape_of
from labsupport.errors import LabsupportError
from labsupport.models.cache import (
    appearing,
    cache_directory,
    locked,
    remove_unless_busy,
    require_free,
    sha256_of,
    usable,
)
from labsupport.models.catalogue import BUNDLED_WEIGHTS, entries, entry
from labsupport.models.checksums import bundled_files, is_as_made, record, require_unchanged

QUANTS = ("bf16", "f16", "q8_0", "q4_k_m", "q2_k")

_RECIPE = "1"  # raise it when conversion changes, so that no cached file of the old one is used
_HASHED_WHOLE_BYTES = 1_000_000_000
_SILENT_WEIGHTS = 100_000_000  # more take long enough to say what is going on
_CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def path(name: str, quant: str = "q4_k_m") -> Path:
    """The GGUF file of a model, made if it is missing.

    `name` is a catalogue entry, a Hugging Face directory, or a .gguf file (which is returned as it is,
    whatever `quant` says). `quant` is one of `QUANTS`. Raises `LabsupportError` if either is unknown, the
    making fails, or the checkpoint is not what was bundled or pulled.
    """
    if name.endswith(".gguf"):
        return gguf_header.read(Path(name).expanduser()).path
    quant = quant.lower()
    if quant not in QUANTS:
        raise LabsupportError(f"There is no quantization {quant!r}.", allowed=", ".join(QUANTS))
    return _made(_product(name, quant), lambda product: _make(name, quant, product))


def vocabulary(name: str) -> Path:
    """A GGUF file of a model's tokenizer and chat template alone, made if it is missing.

    It is for whoever has the weights from `checkpoint(name)` and needs no GGUF of them. `name` and errors are
    as in `checkpoint`.
    """
    folder = checkpoint(name)

    def make(product: Path) -> None:
        from labsupport.models.gguf_tokenizer import write_vocabulary

        with appearing(product) as target:
            write_vocabulary(folder, target)
            record(target, product)

    return _made(_product(name, "vocabulary"), make)


def _made(product: Path, make: Callable[[Path], None]) -> Path:
    """A file of the cache, made if it is missing or no longer as it was made; by one process at a time."""
    with usable(product.parent):
        if is_as_made(product):
            return product
    with locked(product):
        if not is_as_made(product):
            _set_aside(product)
            make(product)
            _remove_stale(product)
    return product


def checkpoint(name: str) -> Path:
    """The directory of a model in Hugging Face's layout (`config.json`, `model.safetensors`, tokenizer, …).

    A model of the hub is pulled if it is missing. Synthetic models have none: only their GGUF file exists.
    Raises `ModelFileError` if the bundled files are not what `checksums.txt` says.
    """
    if name not in entries() and (Path(name).expanduser() / "config.json").is_file():
        return Path(name).expanduser()
    found = entry(name)
    if found.kind == "synthetic":
        raise LabsupportError(
            f"{name} is made of random numbers and exists as a GGUF file only.",
            remedy=f"`labsupport models path {name} --quant q4_k_m` makes it.",
        )
    if found.kind == "hub":
        from labsupport.models.pull import pull

        return pull(name)
    remedy = f"`git checkout -- '{BUNDLED_WEIGHTS}'` brings the bundled files back."
    require_unchanged(BUNDLED_WEIGHTS / "model.safetensors", "", remedy=remedy)
    for file, sha256 in bundled_files(BUNDLED_WEIGHTS).items():
        require_unchanged(file, sha256, remedy=remedy)
    return BUNDLED_WEIGHTS


def cached(name: str) -> list[Path]:
    """The GGUF files in the cache that were made for a model, stale ones included."""
    return sorted(_directory(name).glob("*.gguf"))


def _directory(name: str) -> Path:
    if name in entries():
        return cache_directory() / "gguf" / name
    given = Path(name).expanduser().absolute()
    return cache_directory() / "gguf" / f"{given.name}-{hashlib.sha256(str(given).encode()).hexdigest()[:8]}"


def _product(name: str, quant: str) -> Path:
    if name in entries() and entry(name).kind == "synthetic":
        from labsupport.models.synthetic import SEED

        digest = hashlib.sha256(f"{model_sheet(entry(name).sheet).shape} {SEED}".encode())
    else:
        digest = _checkpoint_digest(checkpoint(name))
    digest.update(_RECIPE.encode())
    return _directory(name) / f"{digest.hexdigest()[:12]}-{quant}.gguf"


def _checkpoint_digest(folder: Path) -> hashlib._Hash:
    """A digest of all that a GGUF file is made of.

    Weights of over 1 GB are not read again each time: their size and time of change stand for them.
    """
    digest = hashlib.sha256()
    for name in _CHECKPOINT_FILES:
        file = folder / name
        digest.update(name.encode() + (file.read_bytes() if file.is_file() else b"-"))
    for file in sorted(folder.glob("*.safetensors")):
        state = file.stat()
        if state.st_size < _HASHED_WHOLE_BYTES:
            digest.update(sha256_of(file).encode())
        else:
            digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}".encode())
    return digest


def _set_aside(product: Path) -> None:
    if product.is_file():
        print(f"{product} no longer has the SHA-256 noted of it: making it again.", file=sys.stderr)
        product.rename(product.with_name(product.name + ".broken"))


def _remove_stale(product: Path) -> None:
    """Remove what was made of another state of the same model: nothing will ask for it again."""
    digest = product.name.partition("-")[0]
    for lock in product.parent.glob("*.gguf.lock"):
        if not lock.name.startswith(digest):
            remove_unless_busy(lock.with_suffix(""))


def _make(name: str, quant: str, product: Path) -> None:
    if name in entries() and entry(name).kind == "synthetic":
        from labsupport.models.synthetic import write_synthetic

        shape = model_sheet(entry(name).sheet).shape

        def write(target: Path, form: str) -> None:
            write_synthetic(shape, target, form=form, name=name)
    else:
        folder = checkpoint(name)
        _require_as_pulled(name)
        shape = shape_of(folder)

        def write(target: Path, form: str) -> None:
            from labsupport.models.convert import convert

            convert(folder, target, form=form)

    weights = parameters(shape).total
    sixteen_bit_bytes = 2 * weights
    needed = sixteen_bit_bytes * (1 if quant in ("bf16", "f16") else 2)
    require_free(product.parent, needed + 50_000_000)
    if weights > _SILENT_WEIGHTS:
        print(f"making {name} {quant} from {weights / 1e9:.1f} billion weights: minutes…", file=sys.stderr)
    with appearing(product) as target:
        _write_quantized(write, target, quant, product)
        record(target, product)


def _require_as_pulled(name: str) -> None:
    """Read a hub model once more before it is converted: minutes of work should not end in nonsense."""
    if name in entries() and entry(name).kind == "hub":
        from labsupport.models.pull import manifest_files

        for file, sha256 in manifest_files(name).items():
            remedy = f"Delete it (`rm '{file}'`); the same command then pulls it again."
            require_unchanged(file, sha256, remedy=remedy)


def _write_quantized(write: Callable[[Path, str], None], target: Path, quant: str, product: Path) -> None:
    """Write 16-bit weights, and where fewer bits are asked, quantize them and drop the 16-bit file."""
    if quant in ("bf16", "f16"):
        write(target, quant)
        return
    from labsupport.models.quantize import quantize

    sixteen_bit = product.with_name(f"{product.name}.16bit")
    try:
        write(sixteen_bit, "bf16")
        quantize(sixteen_bit, target, quant)
    finally:
        sixteen_bit.unlink(missing_ok=True)
