"""Sequences that have come and cannot be queued yet, because their grammar is being read.

Right means: reading a grammar, however long it takes, holds up nobody's step. It happens in a thread of its
own, one grammar after another, while the engine goes on; and whoever waits for it keeps the order in which it
arrived.

That is safe with llama.cpp (as in llama_cpp 0.3.36): `llama_sampler_init_grammar` reads the text with a
parser of its own, the vocabulary is not changed after loading, and no state is shared
(`src/llama-sampler.cpp`, `src/llama-grammar.cpp`). ctypes lets go of Python's lock meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from labsupport.engine.sequence import Sequence


class Arrivals:
    """Grammars on their way, and those of sequences that have not ended: a grammar is held for as long.

    read: makes something of a grammar's text, which is then held. Raises ValueError. None: nothing is to be
        read ahead.
    """

    def __init__(self, read: Callable[[str], object] | None) -> None:
        self._read = read
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammars")
        self._coming: dict[str, tuple[Sequence, Future[object]]] = {}
        self._held: dict[str, object] = {}
        self._listen, self._ring = os.pipe()
        os.set_blocking(self._listen, False)
        self._rings_due = 0

    @property
    def names(self) -> list[str]:
        """Who waits for a grammar."""
        return list(self._coming)

    def fileno(self) -> int:
        """A file that can be read from when `ready` has something; poll it."""
        return self._listen

    def take(self, sequence: Sequence) -> bool:
        """Begin to read a sequence's grammar; False if it has none. Raises ValueError for a name in use."""
        if self._read is None or not sequence.params.grammar:
            return False
        if sequence.request_id in self._coming or sequence.request_id in self._held:
            raise ValueError(f"there is already a request {sequence.request_id!r}")
        future = self._thread.submit(self._read, sequence.params.grammar)
        self._coming[sequence.request_id] = sequence, future
        self._rings_due += 1
        future.add_done_callback(lambda _: os.write(self._ring, b"."))
        return True

    def ready(self) -> Iterator[tuple[Sequence, str]]:
        """Take out those whose grammar has been read, in order of arrival, each with what is wrong, or ""."""
        if not self._rings_due:
            return
        with contextlib.suppress(BlockingIOError):
            self._rings_due -= len(os.read(self._listen, 4096))
        for name, (sequence, future) in list(self._coming.items()):
            if future.done():
                del self._coming[name]
                error = future.exception()
                if error is None:
                    self._held[name] = future.result()
                yield sequence, str(error or "")

    def forget(self, request_id: str) -> bool:
        """A sequence has ended: let go of its grammar. Whether it was still to be read."""
        self._held.pop(request_id, None)
        coming = self._coming.pop(request_id, None)
        if coming:
            coming[1].cancel()
        return coming is not None

    def close(self) -> None:
        """Wait for the grammar that is being read: what it is read with may be freed afterwards."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        self._held.clear()
        os.close(self._listen)
        os.close(self._ring)
