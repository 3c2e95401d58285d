"""`labsupport serve --engine bnb`: the same server, and transformers' own greedy text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import psutil
import pytest
import tokenizers
import torch
from asking import is_idle, wait_until
from transformers import AutoModelForCausalLM

import labsupport
from labsupport import models
from labsupport.server.launch import Server
from tests.engine.transformers_own import generated

QUESTIONS = {
    "What is a KV cache?": 20,
    "How many GB are the weights of a 7B model at 4 bits?": 33,
    "Hello": 6,
    "Name a number.": 27,
    "What is quantization?": 11,
}


@pytest.fixture(scope="module")
def bnb_server() -> Iterator[Server]:
    """Two slots, so that five requests join and leave in the middle of each other's answers."""
    with labsupport.serve("pocket", "fp32", engine="bnb", slots=2, context=512, debug=True) as running:
        yield running


def test_five_at_once_over_http_are_told_what_generate_says(bnb_server):
    checkpoint = models.checkpoint("pocket")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    spell = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json")).decode
    client = bnb_server.openai()

    def ask(question: str) -> tuple[str, str]:
        """Its answer whole and streamed."""
        how = {
            "model": "pocket",
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": QUESTIONS[question],
        }
        whole = client.chat.completions.create(**how)
        chunks = client.chat.completions.create(**how, stream=True)
        streamed = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        return whole.choices[0].message.content, "".join(streamed)

    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        answers = list(pool.map(ask, QUESTIONS))
    for (question, limit), (whole, streamed) in zip(QUESTIONS.items(), answers, strict=True):
        asked = {"messages": [{"role": "user", "content": question}]}
        prompt = httpx.post(f"{bnb_server.url}/tokenize", json=asked, timeout=60).json()["tokens"]
        assert whole == streamed == spell(list(generated(model, prompt, limit)))
    wait_until(lambda: is_idle(bnb_server), what="an idle engine")


def test_the_server_says_what_it_runs_on_and_its_http_process_holds_no_torch(bnb_server):
    (model,) = bnb_server.get("/v1/models").json()["data"]
    assert model["quantization"] == "fp32"
    assert "engine bnb on" in bnb_server.log_tail(100_000)
    engine = bnb_server.get("/debug/engine").json()["pid"]
    libraries = {
        name: {Path(each.path).name for each in psutil.Process(pid).memory_maps()}
        for name, pid in (("http", bnb_server.pid), ("engine", engine))
    }
    assert any(name.startswith("libtorch") for name in libraries["engine"])
    assert not any(name.startswith("libtorch") for name in libraries["http"])


def test_sampling_over_http_keeps_its_seed_in_company(bnb_server):
    client = bnb_server.openai()

    def say(seed: int) -> str:
        return (
            client.completions.create(
                model="pocket", prompt="a", max_tokens=8, temperature=2, top_p=0.95, seed=seed
            )
            .choices[0]
            .text
        )

    alone = [say(0), say(1)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(say, [0, 1, 0, 1])) == alone * 2
    assert alone[0] != alone[1]


def test_a_grammar_is_refused_by_name(bnb_server):
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError) as refused:
        bnb_server.openai().chat.completions.create(
            model="pocket", messages=[{"role": "user", "content": "Hello"}], response_format=schema
        )
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--engine", "bnb", "--quant", "q4_k_m"), "nf4, int8, bf16, fp32 with --engine bnb"),
        (("--engine", "llama", "--quant", "int8"), "--engine bnb serves int8"),
        (("--engine", "bnb", "--model", "synthetic-0.3b"), "--engine llama serves GGUF files"),
        (("--engine", "bnb", "--kv-type", "q8_0"), "kv_type is 'q8_0' with the bnb engine"),
        (("--engine", "bnb", "--context", "100000"), "at most 2048"),
    ],
)
def test_what_the_engine_cannot_do_is_named(options, complaint):
    command = [sys.executable, "-m", "labsupport", "serve", "--port", "0", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert complaint in result.stderr
