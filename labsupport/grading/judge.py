"""From replies to points and to one message that teaches.

Right means: of exactly the expected type (an `int` is not a `float`, `True` is not 1), equal, and a float
within 1e-9 of the expected one. Everything here looks at rebuilt plain data only, so a student's own
classes, and whatever a student does to `abs` or `sum`, never take part in a comparison.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from labsupport.grading.exercise import Exercise, Mistake, Part
from labsupport.grading.inside.plain import Bundled, Directory, File
from labsupport.grading.replies import Asked, Missing, NotPlain, Raised, Reply, Returned, Stopped

NOT_WRITTEN = "NotImplementedError"


@dataclass(frozen=True)
class PartResult:
    """What one part of an exercise earned."""

    name: str
    earned: int
    points: int


@dataclass(frozen=True)
class Verdict:
    """The judgement of one exercise: its parts, one message, and the names of the mistakes recognised.

    `outcome` is `right`, `partly right`, `wrong`, `not written`, or `stopped` (the code had to be stopped,
    so that the points missing are not a judgement of its answers).
    """

    exercise: str
    outcome: str
    message: str
    parts: tuple[PartResult, ...]
    recognised: tuple[str, ...] = ()

    @property
    def earned(self) -> int:
        """Points earned over all parts."""
        return sum(part.earned for part in self.parts)

    @property
    def points(self) -> int:
        """Points that could be earned."""
        return sum(part.points for part in self.parts)


def judge(exercise: Exercise, asked: Sequence[Asked]) -> Verdict:
    """Score the replies part by part, and find the most telling thing to say about them."""
    expected = [exercise.solve(*one.case.arguments) for one in asked]
    parts = tuple(_score(part, asked, expected) for part in exercise.parts)
    earned = sum(part.earned for part in parts)
    if earned == exercise.points:
        return Verdict(exercise.name, "right", "All right.", parts)
    if all(_not_written(one.reply) for one in asked):
        message = "Nothing is written here yet: put your code in the place of `raise NotImplementedError()`."
        return Verdict(exercise.name, "not written", message, parts)
    message, recognised = _explain(exercise, asked, expected)
    stopped = any(isinstance(one.reply, Stopped) for one in asked)
    outcome = "stopped" if stopped else "partly right" if earned else "wrong"
    return Verdict(exercise.name, outcome, message, parts, recognised)


def same(expected: Any, value: Any) -> bool:
    """Whether two pieces of plain data are equal, types included; floats to within a relative 1e-9."""
    if type(expected) is not type(value):
        return False
    if type(expected) is float:
        return math.isclose(expected, value, rel_tol=1e-9, abs_tol=1e-12) or (
            expected != expected and value != value
        )
    if type(expected) is list:
        return len(expected) == len(value) and all(map(same, expected, value))
    if type(expected) is dict:
        return expected.keys() == value.keys() and all(same(expected[key], value[key]) for key in expected)
    return bool(expected == value)


def _score(part: Part, asked: Sequence[Asked], expected: Sequence[Any]) -> PartResult:
    counted = [
        (one, right) for one, right in zip(asked, expected, strict=True) if part.name in one.case.parts
    ]
    passed = bool(counted) and all(_right(part, one.reply, right) for one, right in counted)
    return PartResult(part.name, part.points if passed else 0, part.points)


def _right(part: Part, reply: Reply, expected: Any) -> bool:
    if not isinstance(reply, Returned):
        return False
    try:
        seen = part.view(reply.value)
    except (KeyError, TypeError, AttributeError, IndexError):
        return False
    return same(part.view(expected), seen)


def _judged_right(exercise: Exercise, one: Asked, expected: Any) -> bool:
    return all(_right(part, one.reply, expected) for part in exercise.parts if part.name in one.case.parts)


def _not_written(reply: Reply) -> bool:
    return isinstance(reply, Raised) and reply.exception == NOT_WRITTEN


def _explain(
    exercise: Exercise, asked: Sequence[Asked], expected: Sequence[Any]
) -> tuple[str, tuple[str, ...]]:
    pairs = list(zip(asked, expected, strict=True))
    failing = [(one, right) for one, right in pairs if not _judged_right(exercise, one, right)]
    return (
        _explain_absence(exercise, failing)
        or _explain_mistake(exercise, pairs, failing)
        or _explain_raise(exercise, failing)
        or _explain_difference(exercise, failing)
    )


def _explain_absence(
    exercise: Exercise, failing: list[tuple[Asked, Any]]
) -> tuple[str, tuple[str, ...]] | None:
    for one, _ in failing:
        if isinstance(one.reply, Missing):
            return (
                f"There is no function `{exercise.name}` here. Run the cell that defines it, then this one.",
                (),
            )
        if isinstance(one.reply, Stopped):
            return f"The call {shown(exercise, one)} {one.reply.why}.", ()
    return None


def _explain_mistake(
    exercise: Exercise, pairs: list[tuple[Asked, Any]], failing: list[tuple[Asked, Any]]
) -> tuple[str, tuple[str, ...]] | None:
    """The fewest mistakes that give every answer; failing that, one that gives every wrong answer."""
    returned = [(one, right) for one, right in pairs if isinstance(one.reply, Returned)]
    wrong = [(one, right) for one, right in failing if isinstance(one.reply, Returned)]
    if not wrong:
        return None
    singles = [(mistake,) for mistake in exercise.mistakes]
    twins = list(itertools.combinations(exercise.mistakes, 2))
    for candidates, answers in ((singles, returned), (twins, returned), (singles, wrong)):
        for mistakes in candidates:
            if _reproduces(exercise, mistakes, answers):
                return "\n".join(mistake.says for mistake in mistakes), tuple(m.name for m in mistakes)
    return None


def _reproduces(exercise: Exercise, mistakes: Iterable[Mistake], answers: list[tuple[Asked, Any]]) -> bool:
    changed: dict[str, Any] = {}
    for mistake in mistakes:
        if any(changed.get(key, value) != value for key, value in mistake.switches.items()):
            return False  # the two wrong ideas exclude each other
        changed.update(mistake.switches)
    for one, _ in answers:
        assert isinstance(one.reply, Returned)
        wrong_idea = exercise.solve(*one.case.arguments, **changed)
        counted = [part for part in exercise.parts if part.name in one.case.parts]
        if not all(same(_looked_at(part, wrong_idea), _looked_at(part, one.reply.value)) for part in counted):
            return False
    return True


def _looked_at(part: Part, answer: Any) -> Any:
    """What a part sees of an answer, or all of the answer where it is so wrong that the part sees nothing."""
    try:
        return part.view(answer)
    except (KeyError, TypeError, AttributeError, IndexError):
        return answer


def _explain_raise(
    exercise: Exercise, failing: list[tuple[Asked, Any]]
) -> tuple[str, tuple[str, ...]] | None:
    for one, _ in failing:
        reply = one.reply
        if not isinstance(reply, Raised):
            continue
        raised = f"On {shown(exercise, one)} it raised `{reply.exception}: {reply.text}`{reply.where}."
        for stumble in exercise.stumbles:
            if reply.exception in stumble.exceptions and stumble.contains in reply.text:
                return f"{raised} {stumble.says}", (stumble.name,)
        if reply.exception == NOT_WRITTEN:
            return f"On {shown(exercise, one)} it still raises `NotImplementedError`.", ()
        return raised, ()
    return None


def _explain_difference(exercise: Exercise, failing: list[tuple[Asked, Any]]) -> tuple[str, tuple[str, ...]]:
    one, expected = failing[0]
    call = shown(exercise, one)
    if isinstance(one.reply, NotPlain):
        return f"On {call} it returned {one.reply.found}; {named(expected)} is wanted.", ("type",)
    assert isinstance(one.reply, Returned)
    value = one.reply.value
    if value is None and expected is not None:
        return f"On {call} it returned nothing. Is there a `return`?", ("nothing",)
    if type(value) is float and type(expected) is int and value == expected:
        return (
            f"On {call} it returned the right number, but as a `float`: {value!r}. Bytes and parameters are "
            "counted, so return an `int`: divide with `//`, which stays exact however large the numbers get."
        ), ("float",)
    if type(value) is not type(expected):
        return f"On {call} it returned {named(value)}; {named(expected)} is wanted.", ("type",)
    return f"On {call} it returned {brief(value)}. Right is {brief(expected)}.{_ratio(failing)}", ()


def _ratio(failing: list[tuple[Asked, Any]]) -> str:
    ratios = set()
    for one, expected in failing:
        value = one.reply.value if isinstance(one.reply, Returned) else None
        if type(value) not in (int, float) or type(expected) not in (int, float) or not expected:
            return ""
        ratios.add(round(value / expected, 6))
    if len(ratios) != 1 or len(failing) < 2:
        return ""
    (ratio,) = ratios
    return f" Each time yours is {ratio:g} times the right value: look for one factor, counted or forgotten."


def named(value: Any) -> str:
    """A type in words, with its article."""
    words = {
        int: "an `int`",
        float: "a `float`",
        str: "text (`str`)",
        bool: "a `bool`",
        list: "a `list`",
        dict: "a `dict`",
    }
    return words.get(type(value), "`None`")


def brief(value: Any, limit: int = 160) -> str:
    """A value as Python writes it, cut to `limit` characters; numbers with thousands separators."""
    text = f"{value:,}" if type(value) is int else repr(value)
    return f"`{text if len(text) <= limit else text[: limit - 1] + '…'}`"


def shown(exercise: Exercise, one: Asked) -> str:
    """A call as the student would write it; files by their name only."""
    arguments = ", ".join(_argument(argument) for argument in one.case.arguments)
    return f"`{exercise.name}({arguments})`"


def _argument(value: Any) -> str:
    if isinstance(value, File):
        return f"'{value.name}'"
    if isinstance(value, Directory):
        return "'a folder drawn for you'"
    if isinstance(value, Bundled):
        return f"'labsupport/{value.path}'"
    return repr(value)
