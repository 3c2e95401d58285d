"""From a typed request to the token ids that the engine will run, with the lengths checked first."""

from __future__ import annotations

from labsupport.server.chat_template import ChatTemplate, TemplateBroken, TemplateRefused
from labsupport.server.errors import ApiError, bad_request
from labsupport.server.protocol import ChatRequest, CompletionRequest, Message, TokenizeRequest
from labsupport.server.tokenizer import TextTooLong, Tokenizer


class Prompts:
    """Turns requests into token ids. CPU work only; call it from a thread, long prompts take milliseconds."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    def of(self, request: ChatRequest | CompletionRequest, *, context_tokens: int) -> list[list[int]]:
        """The prompts of a request: one conversation, or each text of a completion.

        In a completion the caller writes the whole prompt, so control tokens are read as such.
        """
        if isinstance(request, ChatRequest):
            return [self._conversation(request.messages, True, context_tokens)]
        return [
            self._text(prompt, True, context_tokens) if isinstance(prompt, str) else prompt
            for prompt in request.prompts
        ]

    def of_tokenize(self, request: TokenizeRequest) -> list[int]:
        """The ids that the other two routes would run, however many they are."""
        if request.messages is not None:
            return self._conversation(request.messages, request.add_generation_prompt, None)
        return self._text(request.prompt or "", request.add_special_tokens, None)

    def _text(self, text: str, add_special: bool, context_tokens: int | None) -> list[int]:
        if context_tokens is not None:
            try:
                self._tokenizer.refuse_longer_than(text, context_tokens)
            except TextTooLong as error:
                raise _over(error.problem, context_tokens, "prompt") from error
        return self._tokenizer.encode(text, add_special=add_special, parse_special=True)

    def _conversation(
        self, messages: list[Message], add_generation_prompt: bool, context_tokens: int | None
    ) -> list[int]:
        if self._template is None:
            raise bad_request(
                "This model has no chat template; use /v1/completions.",
                param="messages",
                code="no_chat_template",
            )
        if context_tokens is not None and len(messages) > context_tokens:
            many = f"there are {len(messages)} messages, of at least one token each"
            raise _over(many, context_tokens, "messages")
        try:
            return self._template.encode(
                [message.for_template() for message in messages],
                add_generation_prompt=add_generation_prompt,
                most_tokens=context_tokens,
            )
        except TextTooLong as error:
            raise _over(error.problem, context_tokens, "messages") from error
        except TemplateRefused as error:
            raise bad_request(f"{error.problem}.", param="messages", code="template_refused") from error
        except TemplateBroken as error:
            raise ApiError(500, f"{error.problem}.", code="template_broken") from error


def completion_tokens(
    request: ChatRequest | CompletionRequest, prompts: list[list[int]], *, context_tokens: int
) -> list[int]:
    """How many tokens each prompt may generate. Raises ApiError 400, with the counts, if it does not fit."""
    limits = []
    where = "messages" if isinstance(request, ChatRequest) else "prompt"
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


def _over(what: str, context_tokens: int | None, param: str) -> ApiError:
    message = f"This server's context length is {context_tokens} tokens, but {what}."
    return bad_request(message, param=param, code="context_length_exceeded")
