"""llama.cpp's grammars, held to one answer each: which of the vocabulary's tokens may come next.

Right means: a drawn token is one that the grammar lets through, and where an answer stands in its grammar
depends on its tokens alone, so that a sequence that was preempted goes on where it was. llama.cpp ends the
process when it is told a token that the grammar refuses, or an end token too early; so it is told only tokens
that were drawn under the same grammar.

A grammar reaches this place only after `engine.grammars.trial` has survived it.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from labsupport.engine.plan import Draw
from labsupport.engine.runners.llama_vocabulary import LlamaVocabulary

Logits = NDArray[np.float32]
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_LEAST_SECOND_BYTE = {b"\xe0": b"\xa0", b"\xf0": b"\x90"}
"""After these first bytes of a character, a lower one makes it overlong (RFC 3629, section 4)."""


class GrammarUnreadable(ValueError):
    """llama.cpp does not take this grammar, which a trial would have shown."""


class ReadGrammar:
    """A grammar that llama.cpp has read, for answers to begin in. It is freed when nobody holds it any more.

    It can be made in any thread: see `engine.arrivals`. Raises GrammarUnreadable.
    """

    def __init__(self, vocabulary: LlamaVocabulary, text: str) -> None:
        self._sampler = llama_cpp.llama_sampler_init_grammar(vocabulary.handle, text.encode(), b"root")
        if not self._sampler:
            raise GrammarUnreadable("llama.cpp cannot read the grammar")
        weakref.finalize(self, llama_cpp.llama_sampler_free, self._sampler)

    def copy(self) -> Any:
        """A sampler of its own at the grammar's beginning, without reading the text again."""
        return llama_cpp.llama_sampler_clone(self._sampler)


class Grammar:
    """One answer's place in a grammar. `close` frees it."""

    def __init__(self, vocabulary: LlamaVocabulary, text: ReadGrammar | str) -> None:
        self._vocabulary = vocabulary
        self._last = b""
        grammar = ReadGrammar(vocabulary, text) if isinstance(text, str) else text
        self._sampler = grammar.copy()

    def advance(self, token: int) -> None:
        """Take in a token that the grammar lets through; any other ends the process."""
        self._last = self._vocabulary.piece(token)
        llama_cpp.llama_sampler_accept(self._sampler, token)

    def refuse(self, candidates: NDArray[np.void]) -> None:
        """Set the logit of every candidate that may not come next to minus infinity."""
        array = llama_cpp.llama_token_data_array(
            data=candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data)),
            size=len(candidates),
            selected=-1,
            sorted=False,
        )
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
        least = _LEAST_SECOND_BYTE.get(self._last[-1:])
        if least:
            self._refuse_overlong(candidates, least)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._sampler)

    def _refuse_overlong(self, candidates: NDArray[np.void], least: bytes) -> None:
        """Refuse what would spell a character in more bytes than UTF-8 allows; llama.cpp takes it."""
        for place in np.flatnonzero(np.isfinite(candidates["logit"])):
            if self._vocabulary.piece(int(candidates["id"][place]))[:1] < least:
                candidates["logit"][place] = -np.inf


class Candidates:
    """The vocabulary as llama.cpp's samplers want it, made once."""

    def __init__(self, vocabulary: LlamaVocabulary) -> None:
        self._all = np.zeros(vocabulary.size, dtype=_CANDIDATE)
        self._all["id"] = np.arange(vocabulary.size)
        self._end = np.array(sorted(vocabulary.end_tokens), dtype=np.int64)
        # llama.cpp's grammars read their names as text.
        self._silent = np.array(sorted(vocabulary.silent_tokens), dtype=np.int64)
        self._is_silent = vocabulary.silent_tokens.__contains__

    def allowed(self, logits: Logits, grammar: Grammar) -> Logits:
        """The logits (vocabulary,) with those of tokens that may not come next at minus infinity: a copy."""
        self._all["logit"] = logits
        self._all["logit"][self._silent] = -np.inf
        grammar.refuse(self._all)
        return self._all["logit"].copy()

    def allowed_or_end(self, logits: Logits, grammar: Grammar) -> Logits:
        """The same; but where no token may come, as none spells what the grammar wants, an answer may end."""
        allowed = self.allowed(logits, grammar)
        if not np.isfinite(allowed).any():
            allowed[self._end] = logits[self._end]
        return allowed

    def allows(self, token: int, grammar: Grammar) -> bool:
        """Whether this one token may come next; far cheaper than asking for all of them."""
        if self._is_silent(token):
            return False
        one = np.zeros(1, dtype=_CANDIDATE)
        one["id"] = token
        grammar.refuse(one)
        return bool(np.isfinite(one["logit"][0]))


@dataclass(frozen=True, slots=True)
class GrammarConstraint:
    """A `sampling.Constraint`: a grammar, at one place of one answer."""

    candidates: Candidates
    grammar: Grammar

    def allows(self, token: int) -> bool:
        return self.candidates.allows(token, self.grammar)

    def allowed(self, logits: Logits) -> Logits:
        return self.candidates.allowed_or_end(logits, self.grammar)


@dataclass(slots=True)
class _Held:
    """Where a slot's answer stands: after the first `taken` generated tokens of this very list."""

    grammar: Grammar
    text: str
    tokens: Any
    taken: int


class HeldGrammars:
    """The grammars of the answers in their slots; at most one to a slot, and none after an answer's end.

    Each answer under way draws a token in every step (`engine.step`), so one that draws none has ended, and
    its grammar is freed then: its slot may be kept for its prefix for long. Were that ever wrong, it would
    cost time and nothing else, as what follows says.

    An answer is known by its list of tokens. One that comes to another slot, or back to its own after others,
    begins its grammar anew and takes in what it has generated; that costs little where the grammar was read
    ahead, since nothing is asked of the vocabulary for it.
    """

    def __init__(self, vocabulary: LlamaVocabulary) -> None:
        self._vocabulary = vocabulary
        self._candidates = Candidates(vocabulary)
        self._held: dict[int, _Held] = {}
        self._read: weakref.WeakValueDictionary[str, ReadGrammar] = weakref.WeakValueDictionary()

    def read(self, text: str) -> ReadGrammar:
        """Read a grammar ahead, in any thread: while the result is held, it is not read again."""
        found = self._read.get(text)
        if found is None:
            found = self._read[text] = ReadGrammar(self._vocabulary, text)
        return found

    def constraint(self, slot: int, how: Draw) -> GrammarConstraint:
        """What the next token of the slot's answer is held to. Good for this draw."""
        return GrammarConstraint(self._candidates, self._at(slot, how))

    def keep(self, slots: Collection[int]) -> None:
        """Free the grammars of all other slots: these are the ones that draw a token in this step."""
        for slot in [slot for slot in self._held if slot not in slots]:
            self.drop(slot)

    def drop(self, slot: int) -> None:
        """Free the grammar of a slot, if there is one."""
        held = self._held.pop(slot, None)
        if held:
            held.grammar.close()

    def close(self) -> None:
        self.keep(())

    def _at(self, slot: int, how: Draw) -> Grammar:
        held = self._held.get(slot)
        is_same = held and held.tokens is how.tokens and held.text == how.params.grammar
        if not held or not is_same or held.taken > how.index:
            self.drop(slot)
            text = how.params.grammar
            held = _Held(Grammar(self._vocabulary, self.read(text)), text, how.tokens, 0)
            self._held[slot] = held
        generated = len(how.tokens) - how.index
        for place in range(generated + held.taken, len(how.tokens)):
            held.grammar.advance(how.tokens[place])
        held.taken = how.index
        return held.grammar
