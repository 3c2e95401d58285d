"""The key file: plain lines, and lines with limits; a mistake is told with its line, and a key never."""

from __future__ import annotations

import hashlib

import pytest

from labsupport.server.keys import Key, KeyFileError, Limits, digest, read_keys


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys"


def test_plain_lines_are_keys_without_limits_named_after_their_digest(file):
    file.write_text("# ours\n\n  first-key  \nsecond=key==\n")

    first, second = read_keys(file)

    hashed = hashlib.sha256(b"first-key").digest()
    assert first == Key(name=hashed.hex()[:12], digest=hashed, limits=Limits())
    assert second.digest == digest("second=key==")


def test_a_line_can_carry_a_name_and_limits_in_any_order(file):
    file.write_text(
        "k1 name=alice requests-per-minute=60 tokens-per-minute=20000 concurrent=4\n"
        "k2 concurrent=1   name=bob@example.org\n"
        "k3 tokens-per-minute=5\n"
    )

    alice, bob, third = read_keys(file)

    assert (alice.name, alice.digest) == ("alice", digest("k1"))
    assert alice.limits == Limits(requests_per_minute=60, tokens_per_minute=20_000, concurrent=4)
    assert (bob.name, bob.limits) == ("bob@example.org", Limits(concurrent=1))
    assert third.limits == Limits(tokens_per_minute=5)


def test_a_line_can_carry_a_priority_and_a_weight(file):
    file.write_text("k1 name=nightly priority=5\nk2 weight=3 name=support priority=-5\nk3\n")

    nightly, support, third = read_keys(file)

    assert (nightly.priority, nightly.weight) == (5, 1)
    assert (support.priority, support.weight, support.limits) == (-5, 3, Limits())
    assert (third.priority, third.weight) == (0, 1)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("secret priority=", "priority is a whole number"),
        ("secret priority=1.5", "priority is a whole number"),
        ("secret priority=+1", "priority is a whole number"),
        ("secret priority=101", "from -100 to 100"),
        ("secret priority=٣", "priority is a whole number"),
        ("secret weight=0", "from 1 to 1000"),
        ("secret weight=-1", "whole number"),
        ("secret weight=1001", "from 1 to 1000"),
        ("weight=3 secret", "the key itself comes first"),
        ("secret words", "no setting"),
        ("secret requests-per-hour=5", "no setting"),
        ("secret Name=alice", "no setting"),
        ("secret requests-per-minute", "no setting"),
        ("secret requests-per-minute=", "whole number"),
        ("secret requests-per-minute=0", "whole number"),
        ("secret requests-per-minute=-1", "whole number"),
        ("secret requests-per-minute=1.5", "whole number"),
        ("secret requests-per-minute=1_000", "whole number"),
        ("secret tokens-per-minute=1e6", "whole number"),
        ("secret tokens-per-minute=٣", "whole number"),
        ("secret concurrent=99999999999999999999999", "whole number"),
        ("secret concurrent=1 concurrent=2", "concurrent is given twice"),
        ("secret name=", "a name is"),
        ("secret name=-x", "a name is"),
        ("secret name=a/b", "a name is"),
        ("secret name=" + "a" * 65, "a name is"),
        ("name=alice secret", "the key itself comes first"),
        ("concurrent=4 secret", "the key itself comes first"),
        ("sécret", "no header value"),
        ("sec\x00ret", "no header value"),
        ("\ufeffsecret", "no header value"),
        ("key-1", "the same key stands in line 2"),
        ("secret name=taken", "the name 'taken' is taken by line 2"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_without_the_key(file, line, complaint):
    file.write_text(f"# ours\nkey-1 name=taken\n\n{line}\n", encoding="utf-8")

    with pytest.raises(KeyFileError) as raised:
        read_keys(file)

    assert f"{file}, line 4: " in raised.value.problem
    assert complaint in raised.value.problem
    assert "secret" not in str(raised.value)
    assert "one key a line" in raised.value.allowed


@pytest.mark.parametrize("content", ["", "\n# nothing\n"])
def test_a_file_without_a_key_is_refused(file, content):
    file.write_text(content)

    with pytest.raises(KeyFileError, match="holds no key"):
        read_keys(file)


def test_a_file_that_is_missing_or_no_text_is_refused(file):
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keys(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keys(file)


def test_what_was_read_cannot_tell_the_key_again(file):
    file.write_text("secret name=alice\n")

    assert "secret" not in repr(read_keys(file))
