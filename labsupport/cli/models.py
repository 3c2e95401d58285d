"""`labsupport models`: list, pull, pin, path, verify, evaluate."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str, *, model: str = "") -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=summary, description=summary.capitalize() + ".")
        if model:
            added.add_argument("model", help=model)
        return added

    action("list", "show every model that has a name").add_argument("--json", action="store_true")
    action("pull", "fetch a model of the hub into the cache, or go on with a pull", model="its name")
    pin = action("pin", "record revision and SHA-256 of a hub model for this computer", model="its name")
    pin.add_argument("--revision", default="main", help="a branch or commit (default: main)")
    pin.add_argument("--json", action="store_true")
    path = action(
        "path", "make what is missing and print the GGUF file", model="a name, directory or .gguf file"
    )
    path.add_argument("--quant", default="q4_k_m", help="bf16, f16, q8_0, q4_k_m (default) or q2_k")
    verify = action("verify", "check header and SHA-256 of every file there is")
    verify.add_argument("models", nargs="*", metavar="model", help="names (default: all)")
    verify.add_argument("--json", action="store_true")
    evaluate = action("evaluate", "measure exact match per skill of the bundled model", model="pocket")
    evaluate.add_argument("--quant", default="bf16", help="bf16 (default), q8_0, q4_k_m or q2_k")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--samples", type=int, default=500, help="samples per skill (default: 500)")
    evaluate.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action; 1 if `verify` finds a fault."""
    return {
        "list": _list,
        "pull": _pull,
        "pin": _pin,
        "path": _path,
        "verify": _verify,
        "evaluate": _evaluate,
    }[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from labsupport.models.catalogue import entries
    from labsupport.models.pins import pin_of
    from labsupport.models.store import cached

    rows = []
    for entry in entries().values():
        pin = pin_of(entry.name)
        state: str = entry.kind
        if entry.kind == "hub":
            pinned_at = pin.revision if pin else entry.revision
            state = f"pinned {pinned_at[:12]}" if pinned_at else "unpinned"
        quants = sorted({file.stem.split("-", 1)[1] for file in cached(entry.name)})
        rows.append({"name": entry.name, "state": state, "cached": quants, "summary": entry.summary})
    if arguments.json:
        _print_json(rows)
        return 0
    for row in rows:
        print(f"{row['name']:<16}{row['state']:<22}{row['summary']}")
        if row["cached"]:
            print(f"{'':<16}in the cache: {', '.join(row['cached'])}")
    return 0


def _pull(arguments: argparse.Namespace) -> int:
    from labsupport.models.pull import pull

    print(pull(arguments.model))
    return 0


def _pin(arguments: argparse.Namespace) -> int:
    from labsupport.models.pins import pins_file
    from labsupport.models.pull import first_contact

    pin = first_contact(arguments.model, revision=arguments.revision)
    if arguments.json:
        _print_json(asdict(pin))
        return 0
    print(f"{arguments.model} is pinned to {pin.revision} in {pins_file()}:")
    for file, sha256 in pin.files.items():
        print(f"  {sha256}  {file} ({pin.sizes[file]:,} bytes)")
    return 0


def _path(arguments: argparse.Namespace) -> int:
    from labsupport import models

    print(models.path(arguments.model, arguments.quant))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from labsupport.models.catalogue import entries
    from labsupport.models.verify import verify

    checks = [check for name in arguments.models or entries() for check in verify(name)]
    if arguments.json:
        _print_json(
            [
                {"file": str(c.file), "ok": not c.problem, "against": c.against, "problem": c.problem}
                for c in checks
            ]
        )
    else:
        for check in checks:
            if check.problem:
                print(f"FAULT      {check.problem}")
            elif check.against:
                print(f"ok         {check.file} (against {check.against})")
            else:
                print(f"unchecked  {check.file} (no checksum is known)")
        if not checks:
            print("Nothing of this is on this computer yet.")
    faults = sum(bool(check.problem) for check in checks)
    if faults:
        print(
            f"{faults} of {len(checks)} files are not what they should be. Delete each: `labsupport models "
            "path` makes or pulls it again; bundled files come back with `git checkout`.",
            file=sys.stderr,
        )
    return 1 if faults else 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from labsupport.errors import LabsupportError
    from labsupport.pocket.report import evaluate

    if arguments.model != "pocket":
        raise LabsupportError(f"{arguments.model} has no questions with exact answers.", allowed="pocket")
    result = evaluate(arguments.quant, seed=arguments.seed, samples=arguments.samples)
    if arguments.json:
        _print_json(result)
        return 0
    print(f"pocket at {result['quant']}, seed {result['seed']}, {result['samples']} held-out samples each")
    for exercise, found in result["exact_match"].items():
        low, high = found["interval_95"]
        print(f"  {exercise:<16}{found['share']:.3f}  (95 % interval {low:.3f} to {high:.3f})")
    return 0


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1))
