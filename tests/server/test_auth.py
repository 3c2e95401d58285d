"""With a key, every route but health wants it; without one, nobody else can reach the server."""

from __future__ import annotations

import re

import httpx
import openai
import pytest
from asking import ASK, KEY
from starlette.routing import Route

from labsupport.engine.config import EngineConfig
from labsupport.server import app
from labsupport.server.auth import OPEN_PATHS, UnprotectedServer, is_loopback, refuse_unprotected
from labsupport.server.engine_link import EngineLink
from labsupport.server.keys import Key, digest
from labsupport.server.room.routes import SESSION_PATH
from labsupport.server.tokenizer import Tokenizer

ROUTES = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/pocket"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/tokenize"),
    ("GET", "/v1/usage"),
    ("GET", "/metrics"),
    ("GET", "/debug/engine"),
    ("GET", "/openapi.json"),
    ("GET", "/nothing/here"),
    ("GET", "/health/ready/"),
    ("GET", "//health/ready"),
    ("GET", "/health/ready/../../metrics"),
]


@pytest.fixture(scope="module")
def keyless(small_server):
    with httpx.Client(base_url=small_server.url, timeout=60) as connection:
        yield connection


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {KEY}x",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY[:-1]}",
    ],
)
def test_every_route_but_health_refuses_a_wrong_key(keyless, method, path, header):
    headers = {} if header is None else {"Authorization": header}

    response = keyless.request(method, path, headers=headers)

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_every_route_of_the_application_is_in_that_list(small_server):
    served = small_server.get("/openapi.json").json()["paths"]

    tried = {path for _, path in ROUTES} | {"/health/live", "/health/ready", "/v1/models/{name}"}
    assert set(served) <= tried


def test_every_route_of_the_application_wants_the_key_also_what_no_document_lists(keyless, gguf_file):
    served = app.ServedHere(
        name="pocket",
        quantization="q4_k_m",
        tokenizer=Tokenizer(gguf_file),
        template=None,
        engine=EngineLink(EngineConfig(model=str(gguf_file)), on_failure=lambda: None),
        most_sequences=1,
        keys=(Key(name="ours", digest=digest(KEY)),),
        debug=True,
    )
    routes = app.build(served).routes
    assert all(isinstance(route, Route) for route in routes)  # the check of keys sees no other kind

    answers = {
        (method, route.path): keyless.request(method, re.sub(r"{.*?}", "pocket", route.path)).status_code
        for route in routes
        for method in route.methods
    }

    assert len(answers) > 10
    assert {path for (_, path), status in answers.items() if status != 401} == OPEN_PATHS | {
        "/",
        SESSION_PATH,
    }


def test_a_request_for_a_web_socket_is_checked_like_any_other(keyless):
    wanted = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    wanted["Sec-WebSocket-Key"] = "x3JJHMbDL1EzLkh9GBhXDw=="

    assert keyless.get("/v1/models", headers=wanted).status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_needs_no_key(keyless, path):
    assert keyless.get(path).status_code == 200


def test_the_right_key_opens(small_server):
    answer = small_server.openai().chat.completions.create(model="pocket", messages=ASK, max_tokens=2)

    assert answer.choices
    with pytest.raises(openai.AuthenticationError):
        small_server.openai(api_key="wrong").models.list()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "", "127.0.0.1.example.org"])
def test_other_than_loopback_needs_a_key(host):
    with pytest.raises(UnprotectedServer, match="no API key"):
        refuse_unprotected(host, [])
    refuse_unprotected(host, [Key(name="ours", digest=digest("key"))])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_loopback_needs_none(host):
    assert is_loopback(host)
    refuse_unprotected(host, [])
