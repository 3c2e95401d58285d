"""A device that has no room, an engine that talks nonsense: real engine processes, spoiled from within.

Python imports a module `sitecustomize` from its path when it starts. The one that is written here waits in
the engine's process, which is otherwise the real one, until a file says what is to go wrong.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SABOTAGE = """
import sys
from pathlib import Path

if "labsupport.engine.worker" in sys.orig_argv:
    import zmq
    from labsupport.engine.plan import CellsExhausted
    from labsupport.engine.runners.llama import LlamaRunner

    folder = Path({folder!r})
    step, send = LlamaRunner.step, zmq.Socket.send

    def step_unless_full(self, plan):
        if not plan or not (folder / "full").exists():
            return step(self, plan)
        for operation in plan.operations:  # which need no room, and are done before any is missed
            self._operate(operation)
        raise CellsExhausted

    def send_unless_mad(self, data, *options, **named):
        if (folder / "mad").exists():
            (folder / "mad").unlink()
            data = b"\\xc1 is no MessagePack"
        return send(self, data, *options, **named)

    LlamaRunner.step, zmq.Socket.send = step_unless_full, send_unless_mad
"""


class Sabotage:
    """Switches for the engine processes that are started while it is installed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def install(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Sabotage:
        (folder / "sitecustomize.py").write_text(_SABOTAGE.format(folder=str(folder)))
        path = filter(None, [str(folder), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
        return cls(folder)

    def fill(self) -> None:
        """From now on the device has no room for anything."""
        (self._folder / "full").touch()

    def make_room(self) -> None:
        (self._folder / "full").unlink()

    def madden(self) -> None:
        """The engine's next word is nonsense."""
        (self._folder / "mad").touch()
