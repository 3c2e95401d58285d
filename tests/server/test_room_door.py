"""Who may look into the engine room: with keys, whoever has one; without, only pages of this very server."""

from __future__ import annotations

import re

import httpx
import pytest
from asking import KEY
from starlette.responses import Response

import labsupport
from labsupport.server.errors import ApiError
from labsupport.server.hosts import host_name
from labsupport.server.keys import Key, digest
from labsupport.server.room import FRONT
from labsupport.server.room import sessions as sessions_module
from labsupport.server.room.sessions import EVENTS_PATH, Sessions, cookie_name

PARTS = ["/room/room.js", "/room/room.css", "/room/page.js", "/room/page.css"]
OURS = Key(name="ours", digest=digest(KEY))


@pytest.fixture
def browser(small_server):
    """A client without a key, which keeps cookies."""
    with httpx.Client(base_url=small_server.url, timeout=60) as connection:
        yield connection


def status_of_stream(browser: httpx.Client, **headers: str) -> int:
    with browser.stream("GET", EVENTS_PATH, headers=headers) as response:
        return response.status_code


def cookie_header(response: Response) -> str:
    return response.headers["set-cookie"].partition(";")[0]


def scope(cookie: str, path: str = EVENTS_PATH):
    return {"path": path, "headers": [(b"cookie", cookie.encode())]}


def test_the_page_and_its_parts_need_no_key_and_load_nothing_from_elsewhere(browser):
    page = browser.get("/")

    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/", *PARTS):
        policy = browser.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {path for path in wanted if path.startswith("/room/")} == set(PARTS) - {"/room/room.js"}
    assert not [path for path in wanted if not path.startswith(("/", "data:"))]
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", page.text)
    for path in PARTS:
        loaded = re.sub(r"http://www\.w3\.org/2000/svg", "", browser.get(path).text)
        assert "//" not in re.sub(r"(?m)(^|\s)//( .*)?$", "", loaded), path
        assert "@import" not in loaded


def test_only_the_named_parts_are_served(browser):
    assert {f"/room/{file.name}" for file in FRONT.iterdir()} - {"/room/index.html"} == set(PARTS)
    with_key = {"Authorization": f"Bearer {KEY}"}
    for path in ("/room/index.html", "/room/../app.py", "/room/%2e%2e/hub.py", "/room/nothing.js"):
        assert browser.get(path, headers=with_key).status_code == 404
        assert browser.get(path).status_code == 401


def test_the_stream_wants_a_key(browser):
    refused = browser.get(EVENTS_PATH)

    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert status_of_stream(browser, Authorization=f"Bearer {KEY}") == 200


def test_who_has_no_key_cannot_make_the_server_hold_or_read_megabytes(browser):
    content = b'{"key":"' + b"x" * 10_000 + b'"}'

    whole = browser.post("/room/session", content=content, headers={"Content-Type": "application/json"})
    parts = browser.post("/room/session", content=iter([content[:5000], content[5000:]]))
    many = browser.post("/room/session", json={f"{number}": 1 for number in range(200)})

    assert (whole.status_code, parts.status_code) == (413, 413)
    assert many.status_code == 400
    assert "200 fields" in many.json()["error"]["message"]


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1], f"{KEY}x", f" {KEY}", "ключ"])
def test_a_wrong_key_is_exchanged_for_401_in_the_same_shape_as_everywhere(browser, key):
    refused = browser.post("/room/session", json={"key": key})

    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize("body", [{}, {"key": 5}, {"key": KEY, "more": 1}, [], "key"])
def test_what_is_no_exchange_at_all_is_400(browser, body):
    refused = browser.post("/room/session", json=body)

    assert refused.status_code == 400
    assert KEY not in refused.text


def test_a_key_is_exchanged_for_a_cookie_that_opens_the_stream_and_nothing_else(browser):
    exchanged = browser.post("/room/session", json={"key": KEY})

    assert exchanged.status_code == 204
    cookie = exchanged.headers["set-cookie"]
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/room", f"Max-Age={12 * 3600}"):
        assert attribute.lower() in cookie.lower()
    assert KEY not in cookie
    assert digest(KEY).hex() not in cookie
    assert status_of_stream(browser) == 200
    # Sent where a browser would not even send it, it opens nothing.
    everywhere = {"Cookie": cookie.partition(";")[0]}
    for path in ("/v1/models", "/metrics", "/debug/engine", "/openapi.json", "/v1/usage", "/room/nothing"):
        assert browser.get(path, headers=everywhere).status_code == 401
    body = {"model": "pocket", "prompt": "Hello", "max_tokens": 1}
    assert browser.post("/v1/completions", json=body, headers=everywhere).status_code == 401


def test_two_servers_on_one_host_end_each_others_sessions_not(small_server, browser):
    other_key = "the-key-of-the-other-server"
    with labsupport.serve("pocket", slots=1, context=256, api_key=other_key) as other:
        assert browser.post("/room/session", json={"key": KEY}).status_code == 204
        assert browser.post(f"{other.url}/room/session", json={"key": other_key}).status_code == 204

        assert status_of_stream(browser) == 200
        with browser.stream("GET", f"{other.url}{EVENTS_PATH}") as response:
            assert response.status_code == 200


def test_the_cookie_is_for_https_alone_where_the_page_came_over_it():
    over_https, over_http = Response(), Response()
    Sessions([OURS]).open(KEY, over_https, is_https=True)
    Sessions([OURS]).open(KEY, over_http, is_https=False)

    assert "Secure" in over_https.headers["set-cookie"]
    assert "Secure" not in over_http.headers["set-cookie"]


def test_a_session_outlives_the_server_but_neither_its_time_nor_its_key(monkeypatch):
    response = Response()
    Sessions([OURS]).open(KEY, response, is_https=False)
    cookie = cookie_header(response)
    other = Key(name="other", digest=digest("another key"))

    assert Sessions([other, OURS]).admits(scope(f"theme=dark; {cookie}"))
    assert not Sessions([OURS]).admits(scope(cookie, "/v1/models"))
    assert not Sessions([other]).admits(scope(cookie))
    monkeypatch.setattr(sessions_module, "SESSION_SECONDS", -1)
    late = Response()
    Sessions([OURS]).open(KEY, late, is_https=False)
    assert not Sessions([OURS]).admits(scope(cookie_header(late)))


def test_no_session_can_be_made_up():
    response = Response()
    Sessions([OURS]).open(KEY, response, is_https=False)
    expires, _, signature = cookie_header(response).removeprefix(f"{cookie_name(OURS)}=").partition(".")

    made_up = [
        "", ".", expires, f"{expires}.", f".{signature}", f"{int(expires) + 1}.{signature}",
        f"{expires}.{'0' * 64}", f"{expires}.{signature[:-1]}", f"{expires}.{signature}0",
        f"-{expires}.{signature}",
        f"{'9' * 5000}.{signature}", f"٣{expires}.{signature}", f"{expires}.é", KEY, digest(KEY).hex(),
    ]  # fmt: skip
    for session in made_up:
        assert not Sessions([OURS]).admits(scope(f"{cookie_name(OURS)}={session}")), session
    with pytest.raises(ApiError):
        Sessions([]).open("", Response(), is_https=False)


@pytest.mark.parametrize(
    "path", ["/", EVENTS_PATH, "/room/room.js", "/v1/models", "/metrics", "/openapi.json"]
)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "10.0.0.1",
        "127.0.0.1.nip.io",
        "[fe80::1]",
    ],
)
def test_without_keys_a_page_of_another_name_is_turned_away(http, path, host):
    refused = http.get(path, headers={"Host": host})

    assert refused.status_code == 421
    assert refused.json()["error"]["code"] == "unknown_host"
    assert "--api-key-file" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8000"]
)
def test_without_keys_this_computers_own_names_are_answered(http, host):
    assert http.get("/", headers={"Host": host}).status_code == 200


def test_health_and_a_server_with_keys_answer_to_any_name(http, browser):
    assert http.get("/health/ready", headers={"Host": "10.0.0.1"}).status_code == 200
    assert browser.get("/", headers={"Host": "models.example"}).status_code == 200


def test_a_host_is_read_without_its_port():
    assert [host_name(host) for host in ("a:1", "A", "[::1]:9", "[::1]", "", ":80")] == [
        "a", "a", "::1", "::1", "", "",
    ]  # fmt: skip
