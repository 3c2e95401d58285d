"""A stand-in for vLLM's server, in a process of its own: the shapes of its protocol, and no model.

It has what our relay meets of vLLM: which fields its chunks have and which they lack, the usage in a last
chunk without choices and, if `continuous_usage_stats` asks for it, in every chunk for its choice; errors as
an object, or flat as older versions wrote them; errors inside a stream, followed by [DONE]; unknown fields
ignored.
Source: vLLM's `entrypoints/openai/{chat_completion,completion,engine}/{protocol,serving}.py`.

A prompt has as many tokens as words, all but one of them cached, and an answer as many as `max_tokens`. The
prompt's words say what happens: `stall` waits for ever after the answer's third token, `break` fails there.

    python vllm_like.py [--priority-scheduling]
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL, KEY, VERSION = "their/model", "their-key", "0.11.2"
HAPPENS_AFTER_TOKENS = 3


class VllmLike:
    """A handle on the process, for the length of a `with` block. url: up to and with /v1."""

    def __init__(self, *options: str) -> None:
        self._options = options

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, __file__, *self._options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        # The port listens before it is named, so that nobody has to try again.
        assert self.process.stdout
        self.root = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    @property
    def seen(self) -> list[dict[str, Any]]:
        """The body of every request that generates, as it came."""
        return httpx.get(f"{self.root}/seen", timeout=60).json()

    @property
    def left(self) -> int:
        """How many streams their readers left before the end."""
        return httpx.get(f"{self.root}/left", timeout=60).json()


def error(status: int, message: str, kind: str, *, param: str | None = None, flat: bool = False) -> Response:
    said = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"object": "error"} | said if flat else {"error": said}, status_code=status)


class Application:
    """The routes, and what they have seen."""

    def __init__(self, *, has_priorities: bool) -> None:
        self._has_priorities = has_priorities
        self._seen: list[dict[str, Any]] = []
        self._left = 0

    def routes(self) -> list[Route]:
        async def health(_: Request) -> Response:
            return Response(status_code=200)  # with nothing in it

        async def version(_: Request) -> Response:
            return JSONResponse({"version": VERSION})

        async def models(request: Request) -> Response:
            card = {"id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": 4096}
            return self._stranger(request) or JSONResponse({"object": "list", "data": [card]})

        async def seen(_: Request) -> Response:
            return JSONResponse(self._seen)

        async def left(_: Request) -> Response:
            return JSONResponse(self._left)

        return [
            Route("/health", health),
            Route("/version", version),
            Route("/v1/models", models),
            Route("/v1/chat/completions", self._generate, methods=["POST"]),
            Route("/v1/completions", self._generate, methods=["POST"]),
            Route("/seen", seen),
            Route("/left", left),
        ]

    def _stranger(self, request: Request) -> Response | None:
        if request.headers.get("authorization") == f"Bearer {KEY}":
            return None
        return JSONResponse({"error": "Unauthorized"}, status_code=401)

    async def _generate(self, request: Request) -> Response:
        if refusal := self._stranger(request):
            return refusal
        asked = await request.json()
        self._seen.append(asked)
        if asked["model"] != MODEL:
            return error(404, f"The model `{asked['model']}` does not exist.", "NotFoundError", param="model")
        if asked.get("priority") and not self._has_priorities:
            message = f"Got priority {asked['priority']} but Priority scheduling is not enabled."
            return error(400, message, "BadRequestError")
        answer = Answer(asked, is_chat="messages" in asked)
        if answer.num_tokens > 4096:
            message = f"'max_tokens' is too large: {answer.num_tokens}."
            return error(400, message, "BadRequestError", param="max_tokens", flat="flat" in answer.words)
        if asked.get("stream"):
            return StreamingResponse(self._watched(answer), media_type="text/event-stream")
        if "stall" in answer.words:
            await asyncio.sleep(3600)
        if "break" in answer.words:
            return error(500, "Internal server error", "InternalServerError")
        return JSONResponse(answer.whole())

    async def _watched(self, answer: Answer) -> AsyncIterator[str]:
        try:
            async for data in answer.events():
                yield f"data: {data}\n\n"
        except asyncio.CancelledError:
            self._left += 1
            raise


class Answer:
    """What vLLM would write, whole or in chunks."""

    def __init__(self, asked: dict[str, Any], *, is_chat: bool) -> None:
        self._asked = asked
        self._is_chat = is_chat
        self._choices_per_prompt = asked.get("n") or 1
        given = asked["messages"][-1]["content"] if is_chat else asked["prompt"]
        self._prompts: list[str] = given if isinstance(given, list) else [given]
        self.words = " ".join(self._prompts).split()
        self.num_tokens: int = asked.get("max_completion_tokens") or asked.get("max_tokens") or 16
        self._num_choices = self._choices_per_prompt * len(self._prompts)
        self._returns_ids = bool(asked.get("return_token_ids"))
        self._head = {"id": "chatcmpl-theirs" if is_chat else "cmpl-theirs", "created": 1, "model": MODEL}

    def whole(self) -> dict[str, Any]:
        text = " ".join(map(str, range(self.num_tokens)))
        choices: list[dict[str, Any]] = []
        for index in range(self._num_choices):
            said = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
            ids = list(range(self.num_tokens)) if self._returns_ids else None
            end = {"logprobs": None, "finish_reason": "length", "stop_reason": None, "token_ids": ids}
            choices.append({"index": index} | said | end)
        kind = "chat.completion" if self._is_chat else "text_completion"
        usage = self._usage(self._num_choices * self.num_tokens) | self._cached()
        return (
            self._head
            | {"object": kind, "choices": choices, "usage": usage}
            | {"prompt_logprobs": None, "prompt_token_ids": self._ids(), "kv_transfer_params": None}
        )

    async def events(self) -> AsyncIterator[str]:
        options = self._asked.get("stream_options") or {}
        includes_usage = bool(options.get("include_usage"))
        is_continuous = includes_usage and bool(options.get("continuous_usage_stats"))
        if self._is_chat:
            for index in range(self._num_choices):
                role = {
                    "delta": {"role": "assistant", "content": ""},
                    "logprobs": None,
                    "finish_reason": None,
                }
                ids = {"prompt_token_ids": self._ids()}
                yield self._chunk(index, role, 0, is_continuous=is_continuous, more=ids)
        for place in range(self.num_tokens):
            await asyncio.sleep(0.002)
            for index in range(self._num_choices):
                if place == HAPPENS_AFTER_TOKENS and "stall" in self.words:
                    await asyncio.sleep(3600)
                if place == HAPPENS_AFTER_TOKENS and "break" in self.words:
                    said = {"message": "Internal server error", "type": "InternalServerError", "param": None}
                    yield json.dumps({"error": said | {"code": 500}})
                    yield "[DONE]"
                    return
                said = {"delta": {"content": f"{place} "}} if self._is_chat else {"text": f"{place} "}
                reason = "length" if place == self.num_tokens - 1 else None
                said |= {"logprobs": None, "finish_reason": reason, "token_ids": None}
                yield self._chunk(index, said, place + 1, is_continuous=is_continuous)
        if includes_usage:
            usage = self._usage(self._num_choices * self.num_tokens) | self._cached()
            yield json.dumps(self._head | {"object": self._kind, "choices": [], "usage": usage})
        yield "[DONE]"

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._is_chat else "text_completion"

    def _chunk(
        self,
        index: int,
        said: dict[str, Any],
        num_tokens: int,
        *,
        is_continuous: bool,
        more: dict[str, Any] | None = None,
    ) -> str:
        """Of one choice, with what that choice alone has used; without usage where none is due."""
        prompt = self._prompts[index // self._choices_per_prompt]
        usage = {"usage": self._usage(num_tokens, [prompt])} if is_continuous else {}
        chunk = self._head | {"object": self._kind, "choices": [{"index": index} | said]}
        return json.dumps(chunk | usage | (more or {}))

    def _usage(self, completion_tokens: int, prompts: list[str] | None = None) -> dict[str, Any]:
        prompt_tokens = sum(len(prompt.split()) for prompt in prompts or self._prompts)
        total_tokens = prompt_tokens + completion_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "total_tokens": total_tokens,
            "completion_tokens": completion_tokens,
        }

    def _cached(self) -> dict[str, Any]:
        return {"prompt_tokens_details": {"cached_tokens": len(self.words) - 1}}

    def _ids(self) -> list[int] | None:
        return list(range(len(self.words))) if self._returns_ids else None


def serve() -> None:
    """Listen on a free port and say which it is on standard output."""
    application = Application(has_priorities="--priority-scheduling" in sys.argv)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(Starlette(routes=application.routes()), log_level="warning")
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    serve()
