"""`labsupport serve`: run the inference server until it is told to stop."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from labsupport.engine.config import EngineConfig
from labsupport.engine.levers import levers
from labsupport.errors import LabsupportError

if TYPE_CHECKING:
    from labsupport.server.run import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options; each is a field of `labsupport.server.run.Settings`, or of its `levers`."""
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
    parser.add_argument(
        "--upstream-knows",
        default="",
        metavar="NAMES",
        help="what the upstream understands beyond OpenAI's API, with commas between: priority (vLLM with "
        "--scheduling-policy priority) is then sent on, and continuous_usage_stats (vLLM) asked for, so that "
        "streams which are left half-way are billed (default: nothing; another server could refuse them)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="other than loopback only with --api-key-file")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free port (default: 8000)")
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="one key a line, then all routes but health need one; after a key may follow name=alice "
        "requests-per-minute=60 tokens-per-minute=20000 concurrent=4 priority=0 weight=1. Tokens are charged "
        "at the most that a request can use (with an upstream: at an estimate; without max_tokens all that "
        "is left) and made right when it ends",
    )
    parser.add_argument(
        "--max-waiting",
        type=int,
        default=64,
        help="sequences that may wait for a slot. More are refused at once with 429 and a time to come "
        "again; a longer queue refuses fewer and lets each wait longer (default: 64)",
    )
    parser.add_argument(
        "--max-prompt-tokens",
        type=int,
        default=0,
        metavar="TOKENS",
        help="prompt tokens that may be in hand, of requests that run or wait. What is over is refused in "
        "the same way, so that long prompts do not make a short queue a slow one; one request alone is "
        "always let in (default: 0, no limit but that of sequences)",
    )
    parser.add_argument(
        "--slowest-reader",
        type=int,
        default=1000,
        metavar="BYTES",
        help="bytes a second that a client has to take of an answer that waits for it, measured over a "
        "minute. Who is slower is hung up on, because the answer holds a place that others wait for. A "
        "higher rate frees it sooner and loses clients with bad connections; 0 lets anybody stay who takes a "
        "byte a minute (default: 1000)",
    )
    parser.add_argument(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="write down what each request used, for `labsupport usage FILE` and /v1/usage "
        "(default: nowhere: who asked when is the callers' own business until somebody wants a bill). "
        "While it cannot be written, new requests are answered 503",
    )
    _configure_levers(parser)
    parser.add_argument("--debug", action="store_true", help="show the engine's invariants at /debug/engine")
    parser.add_argument(
        "--stop-with-stdin",
        action="store_true",
        help="stop when standard input ends, for programs that start this",
    )


def _configure_levers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "levers of the engine",
        "With --engine upstream, --slots says how many requests are with the upstream at once; the others do "
        "nothing there.",
    )
    for lever in levers():
        group.add_argument(
            lever.option,
            dest=lever.field,
            type=lever.kind,
            choices=lever.choices or None,
            metavar={int: "N", float: "SECONDS"}.get(lever.kind),
            default=lever.default,
            help=f"{lever.text} (default: {lever.default})",
        )


def settings(arguments: argparse.Namespace) -> Settings:
    """What the command line says, as the server takes it. Raises LabsupportError."""
    from labsupport.server.run import Settings

    for option, value in (
        ("--max-waiting", arguments.max_waiting),
        ("--max-prompt-tokens", arguments.max_prompt_tokens),
        ("--slowest-reader", arguments.slowest_reader),
    ):
        if value < 0:
            raise LabsupportError(f"{option} is {value}", allowed="0 or more")
    options = {name: value for name, value in vars(arguments).items() if name != "command"}
    if options["model"] is None:
        named = arguments.upstream_model if arguments.engine == "upstream" else None
        options["model"] = named or os.environ.get("LABSUPPORT_MODEL", "pocket")
    turned = {lever.field: options.pop(lever.field) for lever in levers()}
    return Settings(**options, levers=EngineConfig(model="", **turned))


def run(arguments: argparse.Namespace) -> int:
    """Serve. Raises LabsupportError, which ends the command with status 1."""
    from labsupport.server.run import run as serve

    return serve(settings(arguments))
