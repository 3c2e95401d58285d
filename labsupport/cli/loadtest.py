"""`labsupport loadtest`: put a load on a server and say what its callers felt."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "url", nargs="?", default="http://127.0.0.1:8000", help="the server (default: http://127.0.0.1:8000)"
    )
    parser.add_argument("--model", help="its name there (default: the only one that the server has)")
    parser.add_argument(
        "--unlisted", action="store_true", help="ask for --model though the server may not list it"
    )
    parser.add_argument(
        "--clients", type=int, metavar="N", help="closed loop: N callers who wait for answers (default: 4)"
    )
    parser.add_argument(
        "--rate", type=float, metavar="R", help="open loop: R requests a second, answered or not"
    )
    parser.add_argument(
        "--burstiness",
        type=float,
        default=1.0,
        metavar="B",
        help="of an open loop: 1 is Poisson, less comes in bursts, more is more even (default: 1)",
    )
    parser.add_argument("--requests", type=int, default=100, help="how many to send at most (default: 100)")
    parser.add_argument("--seconds", type=float, help="stop sending after this long")
    parser.add_argument(
        "--least-requests", type=int, default=0, metavar="N", help="send so many even if that takes longer"
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='one JSON value a line: "a text", or {"prompt": "a text", "max_tokens": 8} (default: invented)',
    )
    parser.add_argument("--words", type=int, default=60, help="random words in a prompt (default: 60)")
    parser.add_argument(
        "--shared-words", type=int, default=0, metavar="N", help="N more in front, the same in all prompts"
    )
    parser.add_argument("--max-tokens", type=int, default=64, help="longest answer (default: 64)")
    parser.add_argument(
        "--extra",
        default="{}",
        metavar="JSON",
        help='more fields of each request, such as {"ignore_eos": true}',
    )
    parser.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="NAME=SECONDS",
        help="ttft=0.5, tpot=0.05 or e2e=10: report the goodput under it; may be repeated",
    )
    parser.add_argument("--api-key-file", type=Path, help="a file with the key, if the server wants one")
    parser.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="longest silence in an answer (default: 60)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random words and arrivals (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON, times in seconds")
    parser.add_argument("--records", action="store_true", help="with --json: every request too")


def run(arguments: argparse.Namespace) -> int:
    """Run it and print the report; 1 if no request was answered. Raises LabsupportError for wrong options."""
    import msgspec

    from labsupport import loadtest
    from labsupport.loadtest import prompts
    from labsupport.loadtest.client import refuse_if_all_failed

    if arguments.clients is not None and arguments.rate is not None:
        raise LabsupportError("--clients and --rate are two kinds of load", allowed="one of them")
    if arguments.rate is not None:
        arrivals: loadtest.Arrivals = loadtest.Gamma(arguments.rate, arguments.burstiness)
    else:
        arrivals = loadtest.Closed(4 if arguments.clients is None else arguments.clients)
    if arguments.prompts:
        asked = prompts.read(arguments.prompts)[: arguments.requests]
    else:
        asked = loadtest.random_words(
            arguments.requests,
            words=arguments.words,
            shared_words=arguments.shared_words,
            seed=arguments.seed,
        )
    report = loadtest.run(
        arguments.url,
        asked,
        arrivals,
        model=arguments.model,
        unlisted=arguments.unlisted,
        max_tokens=arguments.max_tokens,
        seconds=arguments.seconds,
        least_requests=arguments.least_requests,
        extra=_extra(arguments.extra),
        api_key=_key(arguments.api_key_file),
        timeout_seconds=arguments.timeout,
        slo=loadtest.SLO.parse(arguments.slo) if arguments.slo else None,
        seed=arguments.seed,
    )
    if arguments.json:
        # msgspec writes null where there is no figure; json would write NaN, which is not JSON
        print(msgspec.json.encode(report.as_json(with_records=arguments.records)).decode())
    else:
        print(report)
    refuse_if_all_failed(report.records)
    return 0


def _extra(text: str) -> dict[str, Any]:
    try:
        extra = json.loads(text)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise LabsupportError(f"--extra is {text!r}", allowed="a JSON object")
    return extra


def _key(file: Path | None) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip() if file else None
    except OSError as error:
        raise LabsupportError(f"the key in {file} cannot be read: {error}") from error
