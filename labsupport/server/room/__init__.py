"""The engine room: the page at `/` that shows the engine at work, and the stream of frames that it draws.

The stream is at `/room/events`. What is drawn, and the tables beside it, are made by one JavaScript module,
`front/room.js`, which a notebook's widget uses too. Nobody's words pass through here: only counts, lengths
and times.
"""

from __future__ import annotations

from pathlib import Path

FRONT = Path(__file__).parent / "front"
"""The page and its parts."""
