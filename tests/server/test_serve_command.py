"""`labsupport serve` with something wrong: one clear message, exit status 1, and nothing left running."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

import labsupport
from labsupport.errors import LabsupportError
from labsupport.server.launch import ServerFailed


def serve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "labsupport", "serve", "--port", "0", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)


def refused(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count("labsupport serve:") == 1
    return result.stderr


def test_a_busy_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        message = refused(serve("--port", port))

    assert f"port {port} on 127.0.0.1 is in use" in message
    assert "--port" in message


def test_an_unknown_model_is_named():
    assert "'no-such-model'" in refused(serve("--model", "no-such-model"))


@pytest.mark.parametrize("kept_bytes", [0, 100, 50_000])
def test_a_corrupt_gguf_is_named(gguf_file, tmp_path, kept_bytes):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf_file.read_bytes()[:kept_bytes])

    assert "broken.gguf" in refused(serve("--model", broken))


def test_an_address_that_others_reach_needs_a_key(tmp_path):
    message = refused(serve("--host", "0.0.0.0"))

    assert "no API key" in message
    assert "--api-key-file" in message
    key_file = tmp_path / "keys"
    key_file.write_text("k\n")
    assert "--debug" in refused(serve("--host", "0.0.0.0", "--api-key-file", key_file, "--debug"))


@pytest.mark.parametrize(
    "wrong",
    [
        ("--slots", "0"),
        ("--max-waiting", "-1"),
        ("--host", "no.such.host.invalid", "--api-key-file", __file__),
    ],
)
def test_an_impossible_setting_is_named(wrong, tmp_path):
    if "--api-key-file" in wrong:
        (tmp_path / "keys").write_text("k\n")
        wrong = (*wrong[:-1], tmp_path / "keys")

    assert wrong[1] in refused(serve(*wrong))


def test_a_server_that_does_not_come_up_shows_its_last_words():
    with (
        pytest.raises(ServerFailed, match="slots is 1000") as raised,
        labsupport.serve("pocket", slots=1000),
    ):
        pass

    assert "status 1" in str(raised.value)


def test_an_unknown_model_is_refused_before_anything_starts():
    with pytest.raises(LabsupportError, match="'no-such-model'"), labsupport.serve("no-such-model"):
        pass


def test_the_log_says_which_engine_was_taken_and_why(server):
    log = server.log_tail(100_000)

    assert "engine llama on" in log
    assert "auto:" in log


def test_outside_its_block_a_server_is_gone(server):
    with pytest.raises(ServerFailed, match="not running"):
        _ = labsupport.serve("pocket").pid
