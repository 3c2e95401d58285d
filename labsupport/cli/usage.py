"""`labsupport usage`: what each key used, from a server's ledger, and what it costs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from labsupport.errors import LabsupportError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "ledger", type=Path, metavar="FILE", help="the file of `labsupport serve --ledger FILE`"
    )
    parser.add_argument("--price-in", metavar="X", help="price of a million prompt tokens, in any currency")
    parser.add_argument("--price-out", metavar="Y", help="price of a million generated tokens")
    parser.add_argument(
        "--price-cached",
        metavar="Z",
        help="price of a million prompt tokens found in the prefix cache (default: that of the others)",
    )
    parser.add_argument(
        "--since", metavar="TIME", help="count what arrived then or later: 2026-11-01, or with a time, in UTC"
    )
    parser.add_argument("--until", metavar="TIME", help="count what arrived before then")
    parser.add_argument("--model", metavar="NAME", help="count this model alone")
    parser.add_argument("--json", action="store_true", help="print JSON; costs are strings, to be exact")


def run(arguments: argparse.Namespace) -> int:
    """Print the bill. Raises LabsupportError for a price, time or file that cannot be used."""
    from labsupport.server.bill import Prices, summed, table
    from labsupport.server.totals import Period, Totals, of_all_keys

    prices = None
    if arguments.price_in is not None and arguments.price_out is not None:
        prices = Prices.parse(arguments.price_in, arguments.price_out, arguments.price_cached)
    elif any(
        price is not None for price in (arguments.price_in, arguments.price_out, arguments.price_cached)
    ):
        raise LabsupportError(
            "a price is missing", allowed="--price-in and --price-out together, or none for the use alone"
        )
    period = Period.parse(arguments.since, arguments.until)
    lines, models = of_all_keys(arguments.ledger, period, model=arguments.model)
    total = summed(lines)
    if total.without_usage:
        count = f"{total.without_usage} request" + "s" * (total.without_usage > 1)
        print(f"The bill lacks {count} whose use the upstream never told.", file=sys.stderr)
    if total.failed_tokens:
        print(f"Failed requests used {total.failed_tokens:,} tokens, charged to nobody.", file=sys.stderr)
    if arguments.json:

        def entry(line: Totals) -> dict[str, Any]:
            return line.as_json() | ({"cost": format(prices.cost(line), "f")} if prices else {})

        keys = [{"key": line.key} | entry(line) for line in lines]
        bill = {**period.as_json(), "models": models, "keys": keys, "total": entry(total)}
        print(json.dumps(bill, indent=1))
        return 0
    print(table(lines, prices))
    if prices and len(models) > 1:
        print(f"These prices were used for {len(models)} models: {', '.join(models)}.", file=sys.stderr)
        print("What to do: bill each by itself with --model NAME.", file=sys.stderr)
    return 0
