"""With a key, every route but health wants it; without one, nobody else can reach the server."""

from __future__ import annotations

import httpx
import openai
import pytest
from asking import ASK, KEY

from labsupport.server.auth import UnprotectedServer, is_loopback, refuse_unprotected
from labsupport.server.keys import Key, digest

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
