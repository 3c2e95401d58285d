"""Speed and memory on an NVIDIA GPU: `make bench-gpu`, or `python -m benchmarks.gpu CALL --out FOLDER`.

Four calls, each of which is complete in itself, ends within its minutes, and keeps every figure as soon as it
has it: `memory` (the tests of tests/gpu, and what weights and KV cache take), `bf16` and `quantized` (the bnb
runner at the shape of Llama-3.1-8B against `generate`, transformers' continuous batching and the limit), and
`llama` (the llama runner at the same shape in Q4_K_M). The same call goes on where it stopped.

No network is needed, and nothing of the project installed: what a machine with torch and transformers may
lack is brought along (`benchmarks.cuda.bring`), and the models are random weights made there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cuda import llama_build, machine
from benchmarks.cuda.brought import BINDING, BROUGHT, llama_sources, unpack_missing
from benchmarks.cuda.checkpoint import candidates, is_complete, roomy_folder
from benchmarks.cuda.limit import weights_bytes
from benchmarks.cuda.session import ROOT, Options, Session
from benchmarks.results import RESULTS, Series
from labsupport.anatomy import ModelShape, model_sheet
from labsupport.errors import LabsupportError
from labsupport.machine.detect import usable_cores

QUANTIZED = ("nf4", "int8")
PEERS = ("generate", "continuous")
NEEDED = {
    "memory": ("msgspec", "bitsandbytes"),
    "bf16": ("msgspec",),
    "quantized": ("msgspec", "bitsandbytes"),
    "llama": ("msgspec", "gguf", "diskcache"),
}
"""Packages of each call that a machine with torch and transformers may lack."""


def memory(session: Session) -> None:
    """The tests that need a GPU; then the bytes of weights and KV cache, beside what the anatomy says."""
    _tests(session, "tests/gpu/test_bnb_on_cuda.py")
    checkpoint = _checkpoint(session)
    if checkpoint is None:
        return
    for quantization in ("bf16", *QUANTIZED):
        series = session.series(
            f"gpu-memory-{quantization}", "gpu-memory", own_code=True, quantization=quantization
        )
        if not series.pairs:
            work = {"contender": "memory", "model": str(checkpoint), "quantization": quantization}
            session.ask(work, series.add)


def bf16(session: Session) -> None:
    """The bnb runner in bf16, against transformers and the limit."""
    _against_transformers(session, ("bf16",))


def quantized(session: Session) -> None:
    """The bnb runner in NF4 and INT8, against transformers and the limit."""
    _against_transformers(session, QUANTIZED)


def llama(session: Session) -> None:
    """The llama runner on the GPU: built here if its sources were brought, else as it is installed."""
    environment = _llama_environment(session)
    if environment is None:
        return
    _bandwidth(session)
    folder = _place(session, weights_bytes(ModelShape.from_config(session.config), "q4_k_m"))
    file = folder / "q4_k_m.gguf"
    if file.is_file() or session.ask({"contender": "gguf", "model": str(file), "quantization": "q4_k_m"}):
        _decode(session, "ours", "q4_k_m", file, environment=environment)
    _tests(session, "tests/gpu/test_llama_on_cuda.py", environment=environment)


CALLS: dict[str, Callable[[Session], None]] = {
    "memory": memory,
    "bf16": bf16,
    "quantized": quantized,
    "llama": llama,
}


def _against_transformers(session: Session, quantizations: tuple[str, ...]) -> None:
    checkpoint = _checkpoint(session)
    if checkpoint is None:
        return
    _bandwidth(session)
    for contender in ("ours", *PEERS):  # ours of all first: time may not be enough for everybody
        for quantization in quantizations:
            _decode(session, contender, quantization, checkpoint)


def _decode(
    session: Session,
    contender: str,
    quantization: str,
    model: Path,
    *,
    environment: dict[str, str] | None = None,
) -> None:
    """Tokens a second of one contender, for each number of sequences that is not measured yet."""
    options = session.options
    load = {
        "quantization": quantization,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "repetitions": options.repetitions,
    }
    series = session.series(
        f"gpu-decode-{quantization}-{contender}",
        "gpu-decode",
        own_code=contender == "ours",
        contender=contender,
        config=session.config,
        **load,
    )
    measured = {entry["sequences"] for entry in series.pairs}
    if missing := [count for count in options.sequences if count not in measured]:
        work = {"contender": contender, "model": str(model), "sequences": missing} | load
        session.ask(work, _keeping(series), environment=environment)


def _keeping(series: Series) -> Callable[[dict[str, Any]], None]:
    def keep(entry: dict[str, Any]) -> None:
        series.add(entry)
        rate = entry["figures"].get("decode_tokens_per_second", float("nan"))
        print(f"    {series.path.stem}, {entry['sequences']} at once: {rate:,.1f} tokens/s", flush=True)

    return keep


def _bandwidth(session: Session) -> None:
    series = session.series("gpu-bandwidth", "gpu-bandwidth")
    if not series.pairs:
        session.ask({"contender": "bandwidth", "model": ""}, series.add)


def _checkpoint(session: Session) -> Path | None:
    """The checkpoint of random weights in bf16, made if it is not there; None if that fails."""
    shape = ModelShape.from_config(session.config)
    folder = _place(session, weights_bytes(shape, "bf16")) / "bf16"
    if is_complete(folder) or session.ask({"contender": "checkpoint", "model": str(folder)}):
        return folder
    return None


def _place(session: Session, needed_bytes: int) -> Path:
    """The folder for this shape's models: where one was made before, else where there is room."""
    name = f"under-the-endpoint-{Path(session.options.shape).stem}"
    made = [place / name for place in candidates(session.options.scratch) if (place / name).is_dir()]
    folder = made[0] if made else roomy_folder(needed_bytes, session.options.scratch) / name
    folder.mkdir(exist_ok=True)
    return folder


def _llama_environment(session: Session) -> dict[str, str] | None:
    """The environment in which `import llama_cpp` has CUDA; None if it could not be built."""
    sources, options = llama_sources(session.options.brought), session.options
    if sources is None or options.device != "cuda":
        return session.environment
    build = options.brought / "build"
    commands = llama_build.commands(
        sources,
        build,
        compute_capability=machine.gpu_or_refuse().compute_capability,
        jobs=usable_cores(),
        extra=options.cmake,
    )
    if not all(session.run(command, name=" ".join(command[:2])) for command in commands):
        return None
    return llama_build.environment(build, options.brought / BINDING, session.environment)


def _tests(session: Session, file: str, *, environment: dict[str, str] | None = None) -> None:
    """Run tests and keep how many passed, and the names of those that did not."""
    if session.options.device != "cuda":
        return
    report = session.options.out / f"{Path(file).stem}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += [f"--rootdir={ROOT}", str(ROOT / file)]
    session.run(command, name=file, on_line=print, environment=environment)
    if report.is_file():
        series = session.series(f"gpu-tests-{Path(file).stem}", "gpu-tests", own_code=True, tests=file)
        series.pairs.clear()  # the last run counts
        series.add(read_report(report))
        report.unlink()


def read_report(file: Path) -> dict[str, Any]:
    """What a JUnit report says: how many tests, and which of them did not pass."""
    cases = list(ET.parse(file).getroot().iter("testcase"))
    named = {
        kind: [case.get("name", "") for case in cases if case.find(tag) is not None]
        for kind, tag in (("failed", "failure"), ("broken", "error"), ("skipped", "skipped"))
    }
    return {"tests": len(cases), "seconds": sum(float(case.get("time", 0)) for case in cases)} | named


def read_shape(name: str) -> dict[str, Any]:
    """The config of a published shape by name, or of a `config.json` by path."""
    if name.endswith(".json"):
        found: dict[str, Any] = json.loads(Path(name).read_text(encoding="utf-8"))
        return found
    return model_sheet(name).config


def parse(argv: list[str] | None) -> tuple[list[str], Options]:
    """Read a command line: the calls, and the options of each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Options()
    parser.add_argument("calls", nargs="+", choices=tuple(CALLS), metavar="CALL", help=", ".join(CALLS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results files")
    parser.add_argument("--minutes", type=float, default=default.minutes, help="of each call (default: 8)")
    parser.add_argument(
        "--shape", default=default.shape, help="a published shape, or the path of a config.json"
    )
    parser.add_argument(
        "--sequences", type=int, nargs="+", default=default.sequences, help="at once, in order"
    )
    parser.add_argument("--prompt-tokens", type=int, default=default.prompt_tokens)
    parser.add_argument("--new-tokens", type=int, default=default.new_tokens)
    parser.add_argument("--repetitions", type=int, default=default.repetitions, help="of each measurement")
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu tries the harness; its figures mean nothing",
    )
    parser.add_argument("--scratch", type=Path, help="where the models are made (default: memory, else disk)")
    parser.add_argument("--brought", type=Path, default=BROUGHT, help="what benchmarks.cuda.bring has filled")
    parser.add_argument(
        "--cmake", action="append", default=[], metavar="-DX=Y", help="one more for llama.cpp"
    )
    given = vars(parser.parse_args(argv))
    calls = given.pop("calls")
    return calls, Options(
        **(given | {"sequences": tuple(given["sequences"]), "cmake": tuple(given["cmake"])})
    )


def main(argv: list[str] | None = None) -> int:
    """0 if everything that was asked for is measured."""
    calls, options = parse(argv)
    if options.device == "cuda":
        machine.gpu_or_refuse()
    elif options.out == RESULTS:
        raise LabsupportError(
            "figures of --device cpu mean nothing", remedy="Give them another folder: --out."
        )
    unfinished = []
    for name in calls:
        path = unpack_missing(NEEDED[name], options.brought)
        sys.path[:0] = map(str, path)  # for the versions of packages
        session = Session(name, options, read_shape(options.shape), path)
        print(f"{name}: at most {options.minutes:g} minutes; results in {options.out}", flush=True)
        CALLS[name](session)
        unfinished += [f"{name}: {one}" for one in session.unfinished]
    from benchmarks import tables
    from benchmarks.cuda.tables import print_tables

    print_tables(options.out)
    if options.out == RESULTS:
        tables.main()
    if unfinished:
        print(f"Not finished: {'; '.join(unfinished)}. The same call goes on from here.")
    return 1 if unfinished else 0


if __name__ == "__main__":
    from benchmarks.entry import ending_with_status

    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    ending_with_status(main)
