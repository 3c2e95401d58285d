"""The process behind `labsupport serve`: check everything that can be checked, then listen.

Right means: what is wrong with the settings, the model file, the port or the keys is one message and exit
status 1, before anything is loaded; SIGTERM lets running answers finish for a while and leaves with status
0; and nothing this process started outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import msgspec
import uvicorn

from labsupport.engine.config import EngineConfig, EngineName
from labsupport.engine.levers import levers
from labsupport.engine.model_files import prepare
from labsupport.errors import LabsupportError
from labsupport.server import app, auth, keys
from labsupport.server.chat_template import ChatTemplate
from labsupport.server.engine_link import EngineLink
from labsupport.server.http_protocol import HttpProtocol
from labsupport.server.keys import Key
from labsupport.server.ledger import Ledger
from labsupport.server.tokenizer import Tokenizer
from labsupport.server.upstream.config import (
    PRIORITY,
    UpstreamConfig,
    UpstreamRefused,
    read_key,
    read_names,
)
from labsupport.server.upstream.link import Upstream

LISTENING = "listening on "
"""What comes before the URL in the log line that says that the port is open; `launch` looks for it."""
GRACE_SECONDS = 10
"""How long answers in progress may go on after SIGTERM."""
KEEP_ALIVE_SECONDS = 65
"""How long a connection may be idle: longer than clients and proxies keep theirs, or one would use it once
more just as it is closed. (By default httpx, and so the `openai` client, keeps it for 5 s, and so does
uvicorn; AWS' load balancer for 60 s.)
"""

MakeServed = Callable[[Callable[[], None], Ledger | None], app.Served]
"""Makes what is served, given what to call if its engine cannot start at all, and the ledger."""
_ENGINE_OPTIONS = ("quant", "max_prompt_tokens")
_UPSTREAM_OPTIONS = (
    "upstream",
    "upstream_model",
    "upstream_key_file",
    "upstream_timeout",
    "upstream_knows",
)

logger = logging.getLogger("labsupport.server")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that `labsupport serve` can be told; see its `--help`.

    levers: the engine's; its model is filled in later.
    """

    model: str = "pocket"
    quant: str = ""
    engine: EngineName | Literal["upstream"] = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: Path | None = None
    levers: EngineConfig = field(default_factory=lambda: EngineConfig(model=""))
    max_waiting: int = 64
    max_prompt_tokens: int = 0
    slowest_reader: int = HttpProtocol.least_bytes_per_second
    ledger: Path | None = None
    upstream: str | None = None
    upstream_model: str | None = None
    upstream_key_file: Path | None = None
    upstream_timeout: float = 600.0
    upstream_knows: str = ""
    debug: bool = False
    stop_with_stdin: bool = False


class AddressUnavailable(LabsupportError):
    """The address cannot be listened on."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises LabsupportError for whatever keeps it from starting."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("uvicorn.error", "gguf", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if settings.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    callers = keys.read_keys(settings.api_key_file) if settings.api_key_file else ()
    auth.refuse_unprotected(settings.host, callers)
    if settings.debug and not auth.is_loopback(settings.host):
        raise auth.UnprotectedServer(
            f"--debug with --host {settings.host} would show the engine to other computers",
            remedy="leave out --debug, or listen on 127.0.0.1",
        )
    _refuse_idle(settings)
    with contextlib.ExitStack() as stack:
        if settings.engine == "upstream":
            make_served = _elsewhere(settings, callers)
        else:
            make_served = _here(settings, settings.engine, callers)
        listener = stack.enter_context(_listen(settings.host, settings.port))
        ledger = stack.enter_context(Ledger(settings.ledger)) if settings.ledger else None
        return asyncio.run(_serve(settings, listener, make_served, ledger))


def _here(settings: Settings, engine: EngineName, callers: tuple[Key, ...]) -> MakeServed:
    """A model on an engine of our own, with everything checked that can be before it starts."""
    files = prepare(settings.model, settings.quant, engine=engine, n_gpu_layers=settings.levers.n_gpu_layers)
    tokenizer = Tokenizer(files.vocabulary)
    source = tokenizer.metadata("tokenizer.chat_template")
    config = msgspec.structs.replace(
        settings.levers,
        model=str(files.weights),
        engine=engine,
        quantization=files.quantization if files.engine == "bnb" else "",
        key_weights={key.name: key.weight for key in callers if key.weight != 1},
    ).checked()
    return lambda leave, ledger: app.ServedHere(
        name=served_name(settings.model),
        quantization=files.quantization,
        tokenizer=tokenizer,
        template=ChatTemplate(source, tokenizer) if source else None,
        engine=EngineLink(config, on_failure=leave),
        most_sequences=settings.levers.slots + settings.max_waiting,
        most_prompt_tokens=settings.max_prompt_tokens or None,
        keys=callers,
        ledger=ledger,
        debug=settings.debug,
    )


def _elsewhere(settings: Settings, callers: tuple[Key, ...]) -> MakeServed:
    """A model that another server runs; our name for it is the one that was given, as it was given."""
    config = UpstreamConfig(
        url=settings.upstream or "",
        model=settings.upstream_model or settings.model,
        key=read_key(settings.upstream_key_file),
        connections=settings.levers.slots,
        silence_seconds=settings.upstream_timeout,
        knows=read_names(settings.upstream_knows),
    ).checked()
    if PRIORITY not in config.knows and (silent := [key.name for key in callers if key.priority]):
        logger.warning(
            "the upstream is not told the priority of %s; it would be with --upstream-knows %s",
            ", ".join(silent),
            PRIORITY,
        )
    return lambda leave, ledger: app.ServedElsewhere(
        name=settings.model,
        engine=Upstream(config),
        most_sequences=settings.levers.slots + settings.max_waiting,
        keys=callers,
        ledger=ledger,
        debug=settings.debug,
    )


def _refuse_idle(settings: Settings) -> None:
    """Raise UpstreamRefused for an option that would do nothing, which whoever gave it did not mean."""
    is_relay = settings.engine == "upstream"
    if is_relay and settings.upstream is None:
        raise UpstreamRefused(
            "--engine upstream, but which?", remedy="add --upstream URL, such as http://127.0.0.1:8001/v1"
        )
    idle = _ENGINE_OPTIONS if is_relay else _UPSTREAM_OPTIONS
    turned = [
        f"--{option.name.replace('_', '-')}"
        for option in fields(settings)
        if option.name in idle and getattr(settings, option.name) != option.default
    ]
    if is_relay:
        turned += [
            lever.option
            for lever in levers()
            if lever.field != "slots" and getattr(settings.levers, lever.field) != lever.default
        ]
    if turned:
        raise UpstreamRefused(
            f"{turned[0]} does nothing with --engine {settings.engine}",
            allowed="the options of the engine that is taken",
        )


async def _serve(
    settings: Settings, listener: socket.socket, make_served: MakeServed, ledger: Ledger | None
) -> int:
    def leave(*_: object) -> None:
        server.should_exit = True

    served = make_served(leave, ledger)
    application = app.build(served)
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=HttpProtocol.with_least_rate(settings.slowest_reader),
            ws="none",  # there are no such routes, and the check of keys would not see a request for one
            log_config=None,
            access_log=settings.debug,
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
    )
    application.state.is_leaving = lambda: server.should_exit
    # The web server puts its own handlers over these while it runs, and raises the signal again after it has
    # stopped: by then leaving is what we are doing, with status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    host, port = listener.getsockname()[:2]
    logger.info("%shttp://%s:%d", LISTENING, f"[{host}]" if ":" in host else host, port)
    await server.serve(sockets=[listener])
    if served.engine.failure:
        raise served.engine.failure
    return 0


def served_name(model: str) -> str:
    """The id under which clients ask for a model: its name, or that of its file or directory."""
    return Path(model).name.removesuffix(".gguf")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        raise AddressUnavailable(
            f"port {port} on {host} is in use by another program"
            if taken
            else f"cannot listen on {host} port {port}: {error}",
            remedy="choose another with --port N; --port 0 takes any that is free",
        ) from error


def _stop_with_stdin() -> None:
    """Whoever started us holds the other end and never writes: its end means theirs."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
