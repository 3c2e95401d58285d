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
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from labsupport.engine.config import EngineConfig, EngineName, KVType
from labsupport.engine.model_files import prepare
from labsupport.errors import LabsupportError
from labsupport.server import app, auth, keys
from labsupport.server.chat_template import ChatTemplate
from labsupport.server.engine_link import EngineLink
from labsupport.server.http_protocol import HttpProtocol
from labsupport.server.keys import Key
from labsupport.server.ledger import Ledger
from labsupport.server.tokenizer import Tokenizer

LISTENING = "listening on "
"""What comes before the URL in the log line that says that the port is open; `launch` looks for it."""
GRACE_SECONDS = 10
"""How long answers in progress may go on after SIGTERM."""

logger = logging.getLogger("labsupport.server")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that `labsupport serve` can be told; see its `--help`."""

    model: str = "pocket"
    quant: str = ""
    engine: EngineName = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: Path | None = None
    slots: int = 16
    context: int = 0
    kv_type: KVType = "f16"
    threads: int = 0
    gpu_layers: int = -1
    max_waiting: int = 64
    ledger: Path | None = None
    debug: bool = False
    stop_with_stdin: bool = False


class AddressUnavailable(LabsupportError):
    """The address cannot be listened on."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Raises LabsupportError for whatever keeps it from starting."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("uvicorn.error", "gguf"):
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
    files = prepare(settings.model, settings.quant, engine=settings.engine, n_gpu_layers=settings.gpu_layers)
    tokenizer = Tokenizer(files.vocabulary)
    source = tokenizer.metadata("tokenizer.chat_template")
    config = EngineConfig(
        model=str(files.weights),
        engine=settings.engine,
        quantization=files.quantization if files.engine == "bnb" else "",
        slots=settings.slots,
        context_tokens=settings.context,
        kv_type=settings.kv_type,
        threads=settings.threads,
        n_gpu_layers=settings.gpu_layers,
    ).checked()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(settings.host, settings.port))
        ledger = stack.enter_context(Ledger(settings.ledger)) if settings.ledger else None
        return asyncio.run(
            _serve(
                settings,
                config,
                listener,
                keys=callers,
                ledger=ledger,
                quantization=files.quantization,
                tokenizer=tokenizer,
                template=ChatTemplate(source, tokenizer) if source else None,
            )
        )


async def _serve(
    settings: Settings,
    config: EngineConfig,
    listener: socket.socket,
    *,
    keys: tuple[Key, ...],
    ledger: Ledger | None,
    quantization: str,
    tokenizer: Tokenizer,
    template: ChatTemplate | None,
) -> int:
    def leave(*_: object) -> None:
        server.should_exit = True

    engine = EngineLink(config, on_failure=leave)
    application = app.build(
        app.Served(
            name=served_name(settings.model),
            quantization=quantization,
            tokenizer=tokenizer,
            template=template,
            engine=engine,
            most_sequences=settings.slots + settings.max_waiting,
            keys=keys,
            ledger=ledger,
            debug=settings.debug,
        )
    )
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=HttpProtocol,
            log_config=None,
            access_log=settings.debug,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    # The web server puts its own handlers over these while it runs, and raises the signal again after it has
    # stopped: by then leaving is what we are doing, with status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    host, port = listener.getsockname()[:2]
    logger.info("%shttp://%s:%d", LISTENING, f"[{host}]" if ":" in host else host, port)
    await server.serve(sockets=[listener])
    if engine.failure:
        raise engine.failure
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
