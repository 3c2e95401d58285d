"""`labsupport serve`: run the inference server until it is told to stop."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from labsupport.errors import LabsupportError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options; each is a field of `labsupport.server.run.Settings`."""
    parser.add_argument(
        "--model",
        help="a name from `labsupport models list`, or a GGUF file (default: $LABSUPPORT_MODEL, or pocket); "
        "with an upstream any name, under which it is served here",
    )
    parser.add_argument(
        "--quant",
        default="",
        help="llama: bf16, f16, q8_0, q4_k_m or q2_k (default: q4_k_m); "
        "bnb: nf4, int8, bf16 or fp32 (default: nf4)",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "llama", "bnb", "upstream"),
        default="auto",
        help="llama runs GGUF files on llama.cpp, bnb runs checkpoints on transformers and bitsandbytes; "
        "auto takes the best this machine has: bnb where only torch can use the NVIDIA GPU, else llama; "
        "upstream passes requests on to another server, with the same keys, limits, ledger and metrics",
    )
    parser.add_argument(
        "--upstream", metavar="URL", help="any server of OpenAI's protocol, such as http://127.0.0.1:8001/v1"
    )
    parser.add_argument(
        "--upstream-model", metavar="NAME", help="the model's name there (default: that of --model)"
    )
    parser.add_argument(
        "--upstream-key-file",
        type=Path,
        help="a file with the key that the upstream wants (default: $LABSUPPORT_UPSTREAM_KEY, or none)",
    )
    parser.add_argument(
        "--upstream-timeout",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="longest pause in an upstream's answer, streamed or not (default: 600)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="other than loopback only with --api-key-file")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free port (default: 8000)")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="one key a line, then all routes but health need one; after a key may follow name=alice "
        "requests-per-minute=60 tokens-per-minute=20000 concurrent=4. Tokens are charged at the most that a "
        "request can use (with an upstream: at an estimate; without max_tokens at all that is left) and made "
        "right when it ends",
    )
    parser.add_argument(
        "--slots",
        type=int,
        default=16,
        help="sequences that run at once, or requests that are with the upstream at once; keys take turns "
        "(default: 16)",
    )
    parser.add_argument(
        "--context",
        type=int,
        default=0,
        help="longest prompt and answer, in tokens (default: the model's own)",
    )
    parser.add_argument(
        "--kv-type", choices=("f16", "q8_0", "q4_0"), default="f16", help="number format of the KV cache"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads of the engine (default: by the machine)"
    )
    parser.add_argument(
        "--gpu-layers", type=int, default=-1, help="layers on a GPU, where there is one (default: all)"
    )
    parser.add_argument(
        "--max-waiting", type=int, default=64, help="sequences that may wait for a slot; more are refused"
    )
    parser.add_argument(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="write down what each request used, for `labsupport usage FILE` and /v1/usage "
        "(default: nowhere: who asked when is the callers' own business until somebody wants a bill). "
        "While it cannot be written, new requests are answered 503",
    )
    parser.add_argument("--debug", action="store_true", help="show the engine's invariants at /debug/engine")
    parser.add_argument(
        "--stop-with-stdin",
        action="store_true",
        help="stop when standard input ends, for programs that start this",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve. Raises LabsupportError, which ends the command with status 1."""
    if arguments.max_waiting < 0:
        raise LabsupportError(f"--max-waiting is {arguments.max_waiting}", allowed="0 or more")
    if arguments.model is None:
        named = arguments.upstream_model if arguments.engine == "upstream" else None
        arguments.model = named or os.environ.get("LABSUPPORT_MODEL", "pocket")
    from labsupport.server.run import Settings
    from labsupport.server.run import run as serve

    options = {name: value for name, value in vars(arguments).items() if name != "command"}
    return serve(Settings(**options))
