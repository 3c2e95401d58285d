"""`labsupport serve --engine upstream` with something wrong: one message, and no secret in it."""

from __future__ import annotations

import pytest
from test_serve_command import refused, serve

from labsupport.errors import LabsupportError
from labsupport.server.upstream.config import UpstreamConfig, UpstreamRefused, read_key

URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engine", "upstream"), "--upstream URL"),
        (("--upstream", URL), "--upstream does nothing with --engine auto"),
        (("--upstream-model", "x"), "--upstream-model does nothing"),
        (("--engine", "upstream", "--upstream", URL, "--kv-type", "q8_0"), "--kv-type does nothing"),
        (("--engine", "upstream", "--upstream", URL, "--fairness", "none"), "--fairness does nothing"),
        (("--engine", "upstream", "--upstream", URL, "--slots", "0"), "slots is 0"),
        (("--engine", "upstream", "--upstream", URL, "--upstream-timeout", "nan"), "--upstream-timeout"),
        (("--engine", "upstream", "--upstream", URL, "--upstream-key-file", "no-such-file"), "no-such-file"),
        (("--upstream-knows", "priority"), "--upstream-knows does nothing"),
        (("--engine", "upstream", "--upstream", URL, "--upstream-knows", "priority, tea"), "names 'tea'"),
        (("--engine", "upstream", "--upstream", "https://me:s3cret@host/v1"), "--upstream-key-file"),
    ],
)
def test_an_impossible_setting_is_named(arguments, words):
    message = refused(serve(*arguments))

    assert words in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://host/v1", "http://", "http://[::1", "https://u:s3cret@h/", "https://h/v1?key=s3cret",
     "https://h/v1#s3cret"],
)  # fmt: skip
def test_what_is_no_plain_url_is_refused_and_not_repeated(url):
    with pytest.raises(UpstreamRefused) as raised:
        UpstreamConfig(url=url, model="m").checked()

    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "completed"),
    [
        ("http://h:8001", "http://h:8001/v1"),
        ("http://h:8001/", "http://h:8001/v1"),
        ("http://h:8001/v1/", "http://h:8001/v1"),
        ("https://h/api/openai/v2", "https://h/api/openai/v2"),
        ("http://[::1]:8001", "http://[::1]:8001/v1"),
    ],
)
def test_a_url_without_a_path_gets_the_usual_one(url, completed):
    assert UpstreamConfig(url=url, model="m").checked().url == completed


def test_the_key_comes_from_the_file_or_else_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("LABSUPPORT_UPSTREAM_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("LABSUPPORT_UPSTREAM_KEY", "from-the-environment\n")
    assert read_key(None) == "from-the-environment"
    (tmp_path / "key").write_text("# theirs\nfrom-the-file\n")
    assert read_key(tmp_path / "key") == "from-the-file"


@pytest.mark.parametrize(
    "content", ["s3cret1\ns3cret2\n", "s3cret with spaces\n", "s3cret\x01\n", "s3crét\n", "\n"]
)
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(tmp_path, monkeypatch, content):
    (tmp_path / "key").write_text(content)
    with pytest.raises(LabsupportError) as raised:
        read_key(tmp_path / "key")
    assert "s3cr" not in str(raised.value)

    if content.strip() and "\n" not in content.strip():
        monkeypatch.setenv("LABSUPPORT_UPSTREAM_KEY", content)
        with pytest.raises(UpstreamRefused) as raised:
            read_key(None)
        assert "s3cr" not in str(raised.value)


def test_a_configuration_does_not_show_its_key():
    assert "s3cret" not in repr(UpstreamConfig(url=URL, model="m", key="s3cret"))
