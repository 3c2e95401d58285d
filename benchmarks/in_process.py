"""The engine without HTTP, in a process of its own: `python -m benchmarks.in_process`, which prints JSON.

It reads one JSON object from standard input: the engine's settings, prompts of token ids, tokens to generate,
and how often; and prints the seconds of each repetition. A process of its own, because the runner sets how
OpenMP waits before llama.cpp is loaded, and because nothing else may use its cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from labsupport.errors import LabsupportError


def seconds_in_process(
    settings: dict[str, Any], prompts: list[list[int]], *, max_tokens: int, repetitions: int = 1
) -> list[float]:
    """How long the engine alone takes for all the prompts together, after a warm-up, each repetition."""
    task = {"settings": settings, "prompts": prompts, "max_tokens": max_tokens, "repetitions": repetitions}
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.in_process"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        raise LabsupportError(f"the engine alone failed: {finished.stderr.strip()[-2000:]}")
    found: list[float] = json.loads(finished.stdout)["seconds"]
    return found


def _main() -> int:
    import msgspec

    from labsupport.engine.config import EngineConfig
    from labsupport.engine.messages import SamplingParams
    from labsupport.engine.offline import OfflineEngine

    task = json.load(sys.stdin)
    config = msgspec.convert(task["settings"], EngineConfig).checked()
    params = SamplingParams(max_tokens=task["max_tokens"], temperature=0, ignore_eos=True)
    seconds = []
    with OfflineEngine(config) as engine:
        engine.generate([[1, 2, 3]], SamplingParams(max_tokens=2, temperature=0, ignore_eos=True))
        for _ in range(task["repetitions"]):
            began = time.monotonic()
            done = engine.generate(task["prompts"], params)
            seconds.append(time.monotonic() - began)
            if any(len(one.tokens) != task["max_tokens"] for one in done):
                raise LabsupportError("an answer has another length than was asked for")
    print(json.dumps({"seconds": seconds}))
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
