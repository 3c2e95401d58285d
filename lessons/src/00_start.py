# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 00 · Start here: two ways to run one prompt
#
# **The question.** You send text to an endpoint, and text comes back. You pay per token. What is on the other side
# of that URL, and which parts of it could you run, or break, yourself?
#
# **When you have finished you can**
#
# - read a one-page datasheet of your own machine;
# - run the same prompt in two ways: from weights on your disk, and through an endpoint;
# - name what the endpoint did for you, layer by layer, and the lesson that takes each layer apart;
# - measure the two waits that your users feel, the one before the first word and the one before the last.
#
# **Time:** 35 minutes. **Before you start:** Python, and having called some HTTP API once. No machine learning.

# %% [markdown]
# ## How these pages work
#
# Run a cell with Shift+Enter. Everything runs on this machine. Nothing is sent anywhere, no key is needed, and no
# network: the course brings a small model of its own, called *pocket*.
#
# Three things come back in every lesson.
#
# - **Predict.** Before a measurement you are asked for a number. Write one down, however rough, and lock it. A guess
#   that you can be wrong about is the fastest way to learn what you believe.
# - **Measure.** The number comes from your machine, not from ours. The page shown before you run it carries the
#   numbers of the machine that built it.
# - **Claims.** A number in the text is a link. It leads to a ledger that says how the number was checked, or who
#   said it, and when that was read.
#
# ## Is this machine ready?
#
# The doctor looks at everything that the course needs. Each check that fails comes with the command that mends it. (In a
# terminal it is `labsupport doctor`.)

# %% tags=["measured"]
from labsupport.cli import main as labsupport_command

exit_status = labsupport_command(["doctor"])

# %%
assert exit_status == 0
print("the doctor found nothing that stops you")

# %% [markdown]
# And this is what you have to work with: the datasheet. A vendor prints such a page for a GPU. This one is measured.
# You will come back to two of its numbers all through the course: how much memory there is, and how fast it can be
# read.

# %% tags=["measured"]
from labsupport.machine import datasheet

sheet = datasheet(quick=True)
sheet

# %%
disk_bytes_per_second = sheet.measured("disk, cold").best * 1e9
assert sheet.memory_bytes_per_second > disk_bytes_per_second
print("memory is read faster than the disk")

# %% [markdown]
# ## The job
#
# This is the running example of the course. It goes to small models and large ones, to your laptop and to a GPU: it
# is Monday, the night shift wrote a report, and you want one sentence for the status page.

# %%
from labsupport.pocket import skills

incident = skills.samples("summarize", seed=111, count=1)[0]
print(incident.prompt)

# %% [markdown]
# ## Way one: from the weights on your disk
#
# The library is `transformers`. It needs a folder with a model in it. Loading means: read the file, put its numbers
# into memory. (To run the course with a larger model, set `LABSUPPORT_MODEL` before you start Jupyter; every page
# stays the same.)

# %%
import os
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from labsupport import models

logging.disable_progress_bar()
MODEL = os.environ.get("LABSUPPORT_MODEL", "pocket")
folder = models.checkpoint(MODEL)

started = time.perf_counter()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
load_seconds = time.perf_counter() - started
print(f"loaded {model.num_parameters():,} parameters")

# %% [markdown]
# A model does not see text. It sees integers, called **tokens**, and it expects a conversation in the exact form that
# it was trained on. The *chat template* writes that form.

# %%
chat = [{"role": "user", "content": incident.prompt}]
inputs = tokenizer.apply_chat_template(
    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
token_ids = inputs["input_ids"][0]
print(f"{len(incident.prompt)} characters became {len(token_ids)} tokens")
print("the first of them:", [tokenizer.decode(token) for token in token_ids[:12]])

# %% [markdown]
# Now generate. The model computes one token at a time, and each new token is appended to the input of the next step.
# `do_sample=False` takes the likeliest token every time, so the answer is repeatable.

# %% tags=["measured"]
started = time.perf_counter()
with torch.no_grad():
    generated = model.generate(**inputs, max_new_tokens=80, do_sample=False)[0]
local_seconds = time.perf_counter() - started
local_answer = tokenizer.decode(generated[len(token_ids) :], skip_special_tokens=True)
local_tokens = len(generated) - len(token_ids)

print(local_answer)
local_speed = local_tokens / local_seconds
print(f"\nloading: {load_seconds:.2f} s")
print(
    f"generating {local_tokens} tokens: {local_seconds:.2f} s, that is {local_speed:.0f} tokens/s"
)

# %%
service = incident.answer.split()[1]
assert MODEL != "pocket" or local_answer == incident.answer
print(f"it names {service}, which was in trouble:", service in local_answer)

# %% [markdown]
# Read the report again. Another service and another person stand in it that had nothing to do with it, and a host
# that is no service. The sentence has what you wanted, and nothing else. The report was made by a program that knows
# the right answer, so this can be checked to the letter, and the cell above does. Do not be too impressed: this is a
# report that *pocket* gets right. Its [model card](../labsupport/pocket/weights/README.md) says how often it does not.

# %% [markdown]
# You have just done by hand what an endpoint does for you: find the files, load them, apply the template, tokenize,
# loop, detokenize. What you did *not* do is serve a second user meanwhile, stream the words as they come, refuse a
# request that is too long, count tokens for the bill, or survive a crash.
#
# ## Way two: through an endpoint
#
# `labsupport.serve` starts a real inference server: its own process, quantized weights, continuous batching, and
# the HTTP protocol that the whole industry copied from OpenAI. It is gone when the `with` block ends. The client is
# the official `openai` package, unchanged.

# %%
import labsupport


def ask(server, prompt: str, stream: bool = True) -> tuple[list[str], list[float]]:
    """The pieces of one answer, and when each arrived, in seconds after sending."""
    client = server.openai()
    request = {
        "model": server.model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 80,
    }
    started = time.perf_counter()
    if not stream:
        answer = client.chat.completions.create(**request).choices[0].message.content
        return [answer], [time.perf_counter() - started]
    pieces, seconds = [], []
    for event in client.chat.completions.create(**request, stream=True):
        if event.choices and event.choices[0].delta.content:
            pieces.append(event.choices[0].delta.content)
            seconds.append(time.perf_counter() - started)
    return pieces, seconds


# %% [markdown]
# One number before you look. The endpoint will stream its answer, token by token. You know how fast the local loop
# was: same machine, same model (though the endpoint's weights are quantized), another engine.

# %%
from labsupport.notebook import predict, score

predict(
    "00-stream-speed",
    "How many tokens per second will the endpoint stream to you, once it has begun?",
    unit="tokens/s",
)

# %% tags=["measured"]
# prefix_slots=0: each answer is computed from its whole prompt, nothing is kept from the one before
with labsupport.serve(model=MODEL, progress=False, prefix_slots=0) as server:
    ask(server, "Warm up, please.")
    pieces, seconds = ask(server, incident.prompt)
    whole, whole_seconds = ask(server, incident.prompt, stream=False)
    nonsense, _ = ask(server, "Who is on call tonight?")

endpoint_answer = "".join(pieces)
first_word, last_word = seconds[0], seconds[-1]
print(endpoint_answer)
print(
    f"\nfirst piece after {first_word:.3f} s, last after {last_word:.3f} s, {len(pieces)} pieces"
)

# %%
assert MODEL != "pocket" or service in endpoint_answer  # the endpoint can do it, too
assert len(pieces) > 5  # it really streamed: many pieces,
assert first_word < last_word  # not all at once
assert "".join(whole) == endpoint_answer  # and streaming changed when, not what
print("it streamed, and not streaming gives the same text")

# %% tags=["measured"]
from labsupport.notebook import decode_range

stream_speed = (len(pieces) - 1) / (last_word - first_word)
gguf_bytes = models.path(MODEL, "q4_k_m").stat().st_size
bandwidth = sheet.memory_bytes_per_second
score(
    "00-stream-speed",
    stream_speed,
    unit="tokens/s",
    limit=bandwidth / gguf_bytes,
    limit_name="Memory bandwidth would allow",
    tier=decode_range(sheet.machine.tier, bytes_read=gguf_bytes),
)

# %%
assert stream_speed < bandwidth / gguf_bytes
print("no faster than memory allows")

# %% [markdown]
# The limit is simple arithmetic: for each token of a single stream, every weight must be read from memory once. So the
# file's size and the memory's speed bound the rate. The last row does the same sum for a slow and a fast device of your
# tier, with the bandwidths that their makers print. You are far from the bound here, and that is honest: pocket is so
# small that HTTP, Python and the scheduler take longer than the matrices do. A real model is far heavier. Then the
# bound bites, and lesson 03 shows it biting.
#
# Here is what a user sees of the three runs.

# %% tags=["measured", "hide-input"]
import itertools

from labsupport.notebook import figure

grown = list(itertools.accumulate(len(piece) for piece in pieces))
runs = {
    "endpoint, streamed": (seconds, grown),
    "endpoint, not streamed": (whole_seconds, [grown[-1]]),
    "local generate()": ([local_seconds], [len(local_answer)]),
}
with figure(
    alt="Characters on the reader's screen over time for three runs. The streamed answer climbs in many small steps "
    "from early on; the other two stay at zero and jump to the full length at their end.",
    table={
        "run": [*runs],
        "first characters after (s)": [times[0] for times, _ in runs.values()],
        "complete after (s)": [times[-1] for times, _ in runs.values()],
    },
    inches_tall=3.2,
) as axes:
    end = 1.1 * max(times[-1] for times, _ in runs.values())
    for (name, (times, sizes)), style in zip(
        runs.items(), ("-", "--", ":"), strict=True
    ):
        axes.step(
            [0, *times, end],
            [0, *sizes, sizes[-1]],
            where="post",
            label=name,
            linestyle=style,
            linewidth=2,
        )
    axes.set(xlabel="seconds after sending", ylabel="characters to read", xlim=(0, end))
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=10)

# %% [markdown]
# Read it from the left, as your user lives it.

# %%
halfway = (first_word + last_word) / 2
on_screen = sum(
    len(piece)
    for piece, second in zip(pieces, seconds, strict=True)
    if second <= halfway
)
assert 0 < on_screen < len(endpoint_answer)
print("streamed, there was something to read before the answer was complete")

# %% [markdown]
# Two waits, two names that you will need:
#
# - **TTFT**, time to first token: until the first word appears. It is spent on the network, in the queue, and on
#   reading your prompt.
# - **E2E**, end to end: until the last word. It grows with the length of the answer.
#
# A chat feels fast when the first is short. A pipeline that parses JSON feels only the second. Move the controls: they
# start at what you have just measured.

# %%
from labsupport.notebook import explore_answer_time

explore_answer_time(tokens_per_second=stream_speed, first_token_seconds=first_word)

# %% [markdown]
# > **Takeaway.** Streaming makes nothing faster; each piece is a message of its own, so it may even cost a little. It
# > moves the first word to the front. If your users read, stream. If your code parses, ask how long the answer will be.
#
# ## And the cloud?
#
# The same function works against any provider that speaks this protocol. All that changes is a URL and a key. Nothing
# below runs unless you set both, so that this page stays on your machine.
#
# ```bash
# export CLOUD_BASE_URL=https://…/v1     # from your provider's documentation
# export CLOUD_API_KEY=…                 # never in a notebook
# export CLOUD_MODEL=…                   # the provider's name for the model
# ```

# %%
import openai

if os.environ.get("CLOUD_BASE_URL") and os.environ.get("CLOUD_API_KEY"):
    cloud = openai.OpenAI(
        base_url=os.environ["CLOUD_BASE_URL"], api_key=os.environ["CLOUD_API_KEY"]
    )
    answer = cloud.chat.completions.create(
        model=os.environ["CLOUD_MODEL"], messages=chat, max_tokens=80
    )
    print(answer.choices[0].message.content)
else:
    print("no cloud endpoint is set; the course does not need one")

# %% [markdown]
# Three calls, one interface. That sameness is the endpoint's great strength, and it is why this course exists: it
# hides differences that decide your cost, your latency, your privacy and your weekends.
#
# ## What is under the endpoint
#
# ```text
#   your code ──HTTP──▶ API server ──▶ scheduler ──▶ engine ──▶ weights · KV cache ──▶ CPU or GPU
#                       validates,     who runs      one step    the model, and        where the
#                       tokenizes,     next, and     for all     what it remembers     numbers are
#                       streams        with whom     requests    of each request       multiplied
#   lesson 00           08             06            02          01, 04 · 05           03, 07
# ```
#
# | layer | in way one | in way two | what it costs when it goes wrong |
# |---|---|---|---|
# | files | `models.checkpoint` | the server, at start | a cold start of minutes (08) |
# | chat template, tokens | you called it | the API server | silent nonsense (02) |
# | batching | none: one request at a time | the scheduler | idle hardware, or everybody waits (06) |
# | memory for context | hidden in `generate` | a pool with a limit | out of memory, or refused requests (05) |
# | numbers | float32, as loaded | quantized | quality lost, or money (04) |
# | failures | your process dies | theirs does, you get a 5xx | your pager (08, 11) |
# | the bill | your machine, idle or not | per token | the wrong choice of the two (09, 10) |
#
# ## What breaks
#
# An endpoint has opinions about your requests. Provoke three errors, and a fourth that no server can answer. Then meet
# the failure that looks like success.


# %%
def attempt(what: str, server, **changes) -> None:
    """Send one bad request, and print what the client raises."""
    request = {
        "model": server.model,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5,
    } | changes
    try:
        server.openai().chat.completions.create(**request)
        print(f"{what}: accepted")
    except openai.APIStatusError as error:
        print(f"{what}: {error.status_code} {type(error).__name__}")
    except openai.APIConnectionError as error:
        print(f"{what}: {type(error).__name__}")


with labsupport.serve(model=MODEL, progress=False) as server:
    attempt(
        "a prompt longer than the context",
        server,
        messages=[{"role": "user", "content": "word " * 50_000}],
    )
    attempt("a model that is not there", server, model="gpt-17")
    attempt("a negative number of tokens", server, max_tokens=-1)
    attempt("an honest request", server)
attempt("a server that is gone", server)

# %% [markdown]
# Each of the first three is your mistake, and the server says so with a 4xx. It does not run half of it, cut your
# prompt in silence, or fall over for everybody else. Those are real failures of real servers; lesson 08 has you build
# one that avoids them. The last error never reached a server. Your retry logic has to tell the two kinds apart: retry a
# lost connection, never retry a 400.
#
# And the failure that has no status code? While the server was up, it was also asked who is on call tonight. It cannot
# know.

# %% tags=["measured"]
print("200 OK:", "".join(nonsense))

# %%
assert "".join(nonsense).strip()
print("it answered all the same")

# %% [markdown]
# **Fluent is not right.** *Pocket* was trained for four jobs and answers everything else with the same calm. A far
# larger model fails later and more plausibly. Nothing in HTTP will tell you: only a check of your own can, and the
# course measures every model's answers, not their tone.
#
# Way one has failures of its own. Had the local prompt been too long for memory, nobody would have answered 400. The
# operating system would have killed *this notebook*. An endpoint is also a wall between your process and the model's.
#
# ## Three ways through the course
#
# | you are | read | do |
# |---|---|---|
# | a **platform engineer**, who will run models | everything, in order | all labs |
# | a **backend engineer**, who builds on endpoints | 00, 01, 02, 05, 06, 08, 09 | labs 2, 6, 8, 9 |
# | somebody who **decides** what to buy or build | 00, 01, 03, 09, 10, 11, without running anything | – |
#
# Lessons 00 and 01 and lab 01 are here today. The others are being written, in this order.
#
# ## Check yourself

# %%
from labsupport.notebook import quiz

quiz("00-slow-chat")

# %%
quiz("00-too-long")

# %%
quiz("00-one-word")

# %%
quiz("00-left-to-you")

# %% [markdown]
# ## Sources
#
# Everything on this page was measured on the machine that ran it. The client is the official
# [openai](https://github.com/openai/openai-python) package; the local way is
# [transformers](https://github.com/huggingface/transformers). The server is this repository's own: `labsupport/server`
# and `labsupport/engine`.
#
# ## Next
#
# **Lesson 01** opens the file that you have just loaded, by hand, and asks what you get when somebody "gives you a
# model".
