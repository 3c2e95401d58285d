"""Jinja's immutable sandbox, with a bound on what a template can make of time and memory.

Right means: what a template of a few lines can ask for (a width of ten thousand million, a text that doubles
in a loop, a list of itself) is refused before it is made, for nothing stops a single operation of Python's
that has begun; and no template that only writes conversations down meets a bound.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from types import BuiltinMethodType, FrameType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

LARGEST_NUMBER = 10_000
"""Of an operand or an argument that may be a width or a count."""
LARGEST_TEXT = 2**26
"""Characters that an operation may give; a request's body has at most an eighth of that in bytes."""
MOST_PARTS = 2**18
"""Of lists, and of lists in them, that are written down."""
_WIDE = re.compile(r"\*|\d{5}|:[^}]*\{")
"""A width of five digits in a format, or one that is computed."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Raises SecurityError for what would take too much memory. Texts are not escaped for HTML."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, finalize=_printable)
        self.code_generator_class = _Code
        filters = self.filters | {"tojson": _to_json}
        self.filters = {name: _bounded(name, each) for name, each in filters.items()}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """What a template computes with an operator."""
        if operator == "%" and isinstance(left, str):
            refuse_wide(left)
            _printable(right)
        elif operator == "+":
            _refuse_long(
                sum(_size(side) for side in (left, right)),
                MOST_PARTS if isinstance(left, (list, tuple)) else LARGEST_TEXT,
            )
        elif operator in {"*", "**"}:
            for operand in (left, right):
                if (abs(operand) if isinstance(operand, (int, float)) else len(operand)) > LARGEST_NUMBER:
                    raise SecurityError(f"an operand of {operator} is over {LARGEST_NUMBER}")
            if operator == "**" and abs(right) > 64:
                raise SecurityError("an exponent is over 64")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """What a template calls: methods of its values, and globals."""
        if isinstance(__obj, BuiltinMethodType):
            _refuse_large(__obj.__self__, *args, *kwargs.values())
        elif __obj is not __self.globals["range"]:  # which has a bound of its own
            _refuse_numbers((*args, *kwargs.values()))
        if getattr(__obj, "__name__", "") in {"format", "format_map"}:
            _printable([*args, kwargs])
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`format` and `format_map` of a text."""
        wrapped = super().wrap_str_format(value)
        if wrapped:
            refuse_wide(str(value.__self__))
        return wrapped

    def concat(self, parts: Iterable[str]) -> str:
        """What a block or the whole template has written."""
        known = list(parts)
        _refuse_long(sum(map(len, known)))
        return "".join(known)

    def joined(self, parts: Iterable[Any]) -> str:
        """What `~` makes of its sides."""
        return self.concat([str(_printable(part)) for part in parts])


class Deadline:
    """Ends a template that runs too long, by looking at the clock before each line it executes.

    A thread cannot be killed and a template's loop does not yield; Python's trace hook reaches into it.
    """

    def __init__(self, filename: str, seconds: float) -> None:
        self._filename = filename
        self._seconds = seconds

    def __enter__(self) -> None:
        self._end = time.thread_time() + self._seconds
        self._previous = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._previous)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != self._filename:
            return None
        if time.thread_time() > self._end:
            raise TimeoutError(f"no result after {self._seconds:g} s of computing")
        return self._trace


class _Code(CodeGenerator):
    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802  # Jinja's name
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)  # with the marks by which Jinja knows what to pass
    def bounded(*args: Any, **kwargs: Any) -> Any:
        passed = 1 if args and isinstance(args[0], (Context, nodes.EvalContext, Sandbox)) else 0
        value, *others = args[passed:]
        if name == "join":  # of what may be a generator
            value = list(itertools.islice(value, MOST_PARTS + 1))
        elif name == "format":
            refuse_wide(str(value))
        if name in _WRITING:
            _printable(value)
        _refuse_large(value, *others, *kwargs.values())
        return function(*args[:passed], value, *others, **kwargs)

    return bounded


_WRITING = frozenset({"string", "tojson", "pprint", "join", "format", "upper", "lower", "trim", "xmlattr"})
"""Filters that write down whatever they are given; the others take a text, or only look at it."""


def _to_json(value: object, indent: int | None = None) -> str:
    # Jinja's own filter escapes <, > and & for HTML; a prompt is not HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _printable(value: Any) -> Any:
    """Raise SecurityError for a value that would be too long written down, as a list of itself is."""
    open_ones, parts = [value], 0
    while open_ones:
        one = open_ones.pop()
        parts += 1
        _refuse_long(parts, MOST_PARTS)
        if isinstance(one, Mapping):
            open_ones += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            open_ones += one
    return value


def _refuse_large(*given: Any) -> None:
    """Of a text and what is done with it: no part is put into another one that is long as well."""
    _refuse_numbers(given[1:])
    longest, *others = sorted(map(_size, given), reverse=True)
    _refuse_long(longest * (1 + max(others, default=0)) // 4)


def _refuse_numbers(given: Iterable[Any]) -> None:
    if any(isinstance(each, int) and abs(each) > LARGEST_NUMBER for each in given):
        raise SecurityError(f"a number is over {LARGEST_NUMBER}")


def refuse_wide(form: str) -> None:
    """Raise SecurityError for a format with a large width."""
    if _WIDE.search(form):
        raise SecurityError("a width in a format is over 9999, or computed")


def _refuse_long(parts: int, most: int = LARGEST_TEXT) -> None:
    if parts > most:
        raise SecurityError(f"a result has more than {most} characters or parts")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 0
