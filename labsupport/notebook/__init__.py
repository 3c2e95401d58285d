"""What a notebook imports for its page: predictions, figures, explorers and questions.

    from labsupport.notebook import predict, score, figure, quiz

Right means that a page works three ways: read without running, run from top to bottom with nobody at the
keyboard, and used by hand, with a mouse or without. Names are loaded when they are asked for, so that this
import stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.notebook.answer_time import explore_answer_time as explore_answer_time
    from labsupport.notebook.engine_room import EngineRoom as EngineRoom
    from labsupport.notebook.explorer import Choice as Choice
    from labsupport.notebook.explorer import Explorer as Explorer
    from labsupport.notebook.explorer import Slider as Slider
    from labsupport.notebook.figures import figure as figure
    from labsupport.notebook.model_bytes import explore_model_bytes as explore_model_bytes
    from labsupport.notebook.one_weight import explore_one_weight as explore_one_weight
    from labsupport.notebook.palette import COLOURS as COLOURS
    from labsupport.notebook.predictions import (
        forget as forget,
    )
    from labsupport.notebook.predictions import (
        history as history,
    )
    from labsupport.notebook.predictions import (
        predict as predict,
    )
    from labsupport.notebook.predictions import (
        score as score,
    )
    from labsupport.notebook.questions import quiz as quiz
    from labsupport.notebook.tier_range import decode_range as decode_range

_MODULE_OF = {
    "COLOURS": "palette",
    "Choice": "explorer",
    "EngineRoom": "engine_room",
    "Explorer": "explorer",
    "Slider": "explorer",
    "decode_range": "tier_range",
    "explore_answer_time": "answer_time",
    "explore_model_bytes": "model_bytes",
    "explore_one_weight": "one_weight",
    "figure": "figures",
    "forget": "predictions",
    "history": "predictions",
    "predict": "predictions",
    "quiz": "questions",
    "score": "predictions",
}


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
