"""`python -m labsupport.pocket`: the whole way from nothing to weights, record and card (`make pocket`).

Training goes on where it was stopped. The bundled weights are replaced only when all is done.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from labsupport.pocket.publish import publish, replace_folder
from labsupport.pocket.report import WEIGHTS
from labsupport.pocket.train import CHECKPOINT, LOSS_CURVE

KEEP_MEMORY = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=4294967296",
        "glibc.malloc.trim_threshold=8589934592",
        "glibc.malloc.arena_max=1",
    )
)
"""Where glibc is: memory of one step is kept for the next, in huge pages, and not asked of the system anew.
(1.2 times the tokens/s, once before and after.)"""


def main() -> None:
    """Train in a folder of its own, put the result in the package, evaluate it, write the card."""
    parser = argparse.ArgumentParser(prog="python -m labsupport.pocket", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/pocket"), help="checkpoints and loss curve")
    parser.add_argument("--seed", type=int, default=1, help="of the training")
    parser.add_argument("--evaluation-seed", type=int, default=2026)
    parser.add_argument("--samples", type=int, default=500, help="held-out samples per exercise")
    arguments = parser.parse_args()
    exported = arguments.out / "weights"
    command = [sys.executable, "-m", "labsupport.pocket.train", "--out", str(arguments.out)]
    subprocess.run(
        [*command, "--seed", str(arguments.seed), "--export", str(exported)],
        check=True,
        env=os.environ | {"GLIBC_TUNABLES": KEEP_MEMORY},
    )
    curve = json.loads((arguments.out / LOSS_CURVE).read_text(encoding="utf-8"))
    publish(
        exported,
        curve,
        training_seed=arguments.seed,
        seed=arguments.evaluation_seed,
        samples=arguments.samples,
    )
    replace_folder(exported, WEIGHTS)
    print(f"done; {arguments.out / CHECKPOINT} may be deleted")


if __name__ == "__main__":
    main()
