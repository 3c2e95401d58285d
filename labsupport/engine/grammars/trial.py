"""Trying a grammar out in a process of its own, before it comes near the engine.

Right means: a grammar that makes llama.cpp abort, recurse too deep, take much memory or think for long does
so here, where nothing else runs: this process is ended and started again, and the grammar refused. One that
passed has been read by the llama.cpp that will read it again, has tokens for its first steps, and masked
them in bearable time.

Time is processor time, so a busy machine refuses nothing that an idle one takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from labsupport.engine.process import child_environment
from labsupport.engine.validation import RequestRefused
from labsupport.errors import LabsupportError

if TYPE_CHECKING:
    from labsupport.engine.runners.llama_vocabulary import LlamaVocabulary

CPU_SECONDS = 2
"""What one trial may take. Enforced to whole seconds."""
MEMORY_BYTES = 2 * 2**30
WALKS, STEPS = 3, 16
SLOWEST_STEP_SECONDS = 0.5
"""What the slowest step may take: of every answer under way, each token waits for it."""
START_WITHIN_SECONDS = 120.0
ANSWER_WITHIN_SECONDS = 60.0


class GrammarRefused(RequestRefused):
    """A grammar that harms, or that nothing satisfies."""


class TrialUnavailable(LabsupportError):
    """The trial's process cannot be started, got no processor time, or was killed by somebody else."""


class Trial:
    """A process that tries grammars on one model's vocabulary. `close` ends it. Safe for several threads.

    model: a GGUF file, of which only the vocabulary is read.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def refuse_harmful(self, grammar: str) -> None:
        """Return for a harmless grammar. Raises GrammarRefused, or TrialUnavailable."""
        with self._lock:
            verdict = self._try(grammar)
        if verdict:
            raise GrammarRefused(verdict, allowed="a simpler schema")

    def close(self) -> None:
        """End the process, whatever it is at. Safe to repeat."""
        if process := self._process:
            process.kill()
        with self._lock:
            self._end()

    def _try(self, grammar: str) -> str:
        if self._process and self._process.poll() is not None:
            self._end()  # it died of something else, which is not this grammar's fault
        process = self._process or self._start()
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(grammar), file=process.stdin, flush=True)
        answer = self._answer(process, ANSWER_WITHIN_SECONDS)
        if answer is not None:
            return str(json.loads(answer))
        self._end()
        if process.returncode == -signal.SIGKILL:  # no limit of its own does that
            raise TrialUnavailable("the process that tries grammars out was killed")
        return f"the grammar takes more than {CPU_SECONDS} s or too much memory to try out"

    def _start(self) -> subprocess.Popen[str]:
        process = self._process = subprocess.Popen(
            [sys.executable, "-m", "labsupport.engine.grammars.trial", str(self._model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # llama.cpp prints every grammar that it cannot read
            env=child_environment() | {"CUDA_VISIBLE_DEVICES": ""},  # a vocabulary needs none of their memory
            text=True,
        )
        if not self._answer(process, START_WITHIN_SECONDS):
            self._end()
            raise TrialUnavailable("the process that tries grammars out did not start")
        return process

    def _answer(self, process: subprocess.Popen[str], seconds: float) -> str | None:
        """A line from the process, or None if it has ended. Raises TrialUnavailable if it is only silent."""
        if process.stdout is None or not _is_readable(process.stdout, seconds):
            self._end()
            raise TrialUnavailable(f"the process that tries grammars out said nothing for {seconds} s")
        return process.stdout.readline() or None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _is_readable(stream: IO[str], seconds: float) -> bool:
    """Whether there is something to read, or the end, within so long."""
    poll = select.poll()  # `select.select` knows no file number from 1,024 on
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def main() -> None:
    """`python -m labsupport.engine.grammars.trial MODEL`: a grammar a line, and a verdict, both as JSON."""
    from labsupport.engine.runners.llama_vocabulary import LlamaVocabulary

    vocabulary = LlamaVocabulary.of_file(Path(sys.argv[1]))
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a native library prints is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + CPU_SECONDS, hard))
        print(json.dumps(_walked(vocabulary, json.loads(line))), file=answers, flush=True)


def _walked(vocabulary: LlamaVocabulary, text: str) -> str:
    """What is wrong with a grammar, "" if nothing: read it and take some random ways through it."""
    import numpy as np

    from labsupport.engine.runners.llama_grammar import Candidates, Grammar, GrammarUnreadable

    candidates = Candidates(vocabulary)
    level = np.zeros(vocabulary.size, dtype=np.float32)
    for seed in range(WALKS):
        try:
            grammar = Grammar(vocabulary, text)
        except GrammarUnreadable:
            return "llama.cpp cannot read the schema's grammar"
        with contextlib.closing(grammar):
            chance = random.Random(seed)
            for _ in range(STEPS):
                begin = time.thread_time()
                allowed = np.flatnonzero(np.isfinite(candidates.allowed(level, grammar)))
                seconds = time.thread_time() - begin
                if seconds > SLOWEST_STEP_SECONDS:
                    return f"the schema's grammar takes {seconds:.1f} s for a token"
                if not len(allowed):
                    return "the model's vocabulary cannot spell what the schema asks for"
                token = int(chance.choice(allowed))
                if token in vocabulary.end_tokens:
                    break
                grammar.advance(token)
    return ""


if __name__ == "__main__":
    main()
