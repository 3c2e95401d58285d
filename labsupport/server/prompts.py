"""From a typed request to the token ids that the engine will run, with the lengths checked first."""

from __future__ import annotations

from labsupport.server.chat_template import ChatTemplate, TemplateBroken, TemplateRefused
from labsupport.server.errors import ApiError, bad_request
from labsupport.server.protocol import ChatRequest, CompletionRequest, Message, TokenizeRequest
from labsupport.server.tokenizer import TextTooLong, Tokenizer

MOST_TOKENIZED = 2**16
"""Tokens that `/tokenize` lists, or a context full of them if that is more: a list of millions takes seconds
to write down, and nobody else is answered meanwhile."""


class Prompts:
    """Turns requests into token ids. CPU work only; call it from a thread, long prompts take milliseconds."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    def of(self, request: ChatRequest | CompletionRequest, *, context_tokens: int) -> list[list[int]]:
        """The prompts of a request: one conversation, or each text of a completion.

        In a completion the caller writes the whole prompt, so control tokens are read as such.
        """
        where = _where(request)
        try:
            if isinstance(request, ChatRequest):
                return [self._conversation(request.messages, True, context_tokens)]
            return [
                self._text(prompt, True, context_tokens) if isinstance(prompt, str) else prompt
                for prompt in request.prompts
            ]
        except TextTooLong as error:
            raise _over(error.problem, context_tokens, where) from error

    def of_tokenize(self, request: TokenizeRequest, *, context_tokens: int | None) -> list[int]:
        """The ids that the other two routes would run, also of what is too long for them.

        context_tokens: None while it is not known yet.
        """
        most = max(MOST_TOKENIZED, context_tokens or 0)
        try:
            if request.messages is not None:
                ids = self._conversation(request.messages, request.add_generation_prompt, most)
            else:
                ids = self._text(request.prompt or "", request.add_special_tokens, most)
            if len(ids) > most:
                raise TextTooLong(f"there are {len(ids)}", allowed=f"at most {most}")
        except TextTooLong as error:
            raise bad_request(
                f"At most {most} tokens are listed, but {error.problem}.",
                param="prompt" if request.messages is None else "messages",
                code="context_length_exceeded",
            ) from error
        return ids

    def spell(self, tokens: list[int]) -> list[str]:
        """What each token stands for; half a character becomes U+FFFD."""
        return [self._tokenizer.piece(token).decode("utf-8", "replace") for token in tokens]

    def _text(self, text: str, add_special: bool, most_tokens: int) -> list[int]:
        self._tokenizer.refuse_longer_than(text, most_tokens)
        return self._tokenizer.encode(text, add_special=add_special, parse_special=True)

    def _conversation(
        self, messages: list[Message], add_generation_prompt: bool, most_tokens: int
    ) -> list[int]:
        if self._template is None:
            raise bad_request(
                "This model has no chat template; use /v1/completions.",
                param="messages",
                code="no_chat_template",
            )
        if len(messages) > most_tokens:
            raise TextTooLong(f"there are {len(messages)} messages, of at least one token each")
        try:
            return self._template.encode(
                [message.for_template() for message in messages],
                add_generation_prompt=add_generation_prompt,
                most_tokens=most_tokens,
            )
        except TemplateRefused as error:
            raise bad_request(f"{error.problem}.", param="messages", code="template_refused") from error
        except TemplateBroken as error:
            raise ApiError(500, f"{error.problem}.", code="template_broken") from error


def completion_tokens(
    request: ChatRequest | CompletionRequest, prompts: list[list[int]], *, context_tokens: int
) -> list[int]:
    """How many tokens each prompt may generate. Raises ApiError 400, with the counts, if it does not fit."""
    limits = []
    where = _where(request)
    for prompt in prompts:
        length, room = len(prompt), context_tokens - len(prompt)
        if length == 0:
            raise bad_request("The prompt has no tokens.", param=where, code="invalid_value")
        if room < 1:
            raise _over(
                f"the {where} have {length} tokens, which leaves no room for an answer", context_tokens, where
            )
        limit = request.completion_limit(room)
        if limit > room:
            asked = (
                f"{length + limit} tokens are asked for: {length} in the {where}, {limit} in the completion"
            )
            raise _over(asked, context_tokens, "max_tokens")
        limits.append(limit)
    return limits


def _where(request: ChatRequest | CompletionRequest) -> str:
    return "messages" if isinstance(request, ChatRequest) else "prompt"


def _over(what: str, context_tokens: int, param: str) -> ApiError:
    message = f"This server's context length is {context_tokens} tokens, but {what}."
    return bad_request(message, param=param, code="context_length_exceeded")
