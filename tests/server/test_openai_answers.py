"""What a client of OpenAI's API gets: one text streamed or not, exact usage, stops, logprobs, choices."""

from __future__ import annotations

import openai
import pytest
from asking import ASK

from labsupport.engine.messages import Delta, TokenLogprob
from labsupport.server.answers import CompletionFormat

GREEDY = {"model": "pocket", "temperature": 0}


def as_prompt(question):
    """What the model was trained on: off its beat its two best tokens are too close to repeat a text."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


PROMPT = as_prompt("What is a KV cache?")


def chat(client, **options):
    return client.chat.completions.create(**{**GREEDY, "messages": ASK, "max_tokens": 24, **options})


def complete(client, **options):
    return client.completions.create(
        **{**GREEDY, "prompt": PROMPT, "max_tokens": 24, "extra_body": {"ignore_eos": True}, **options}
    )


def test_a_chat_answer_has_everything_that_the_client_reads(client):
    answer = chat(client)

    (choice,) = answer.choices
    assert answer.object == "chat.completion"
    assert answer.model == "pocket"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}


def test_a_stream_put_together_is_the_answer_not_streamed(client):
    chat(client)  # from here on the prompt is in the prefix cache for both
    whole = chat(client)

    chunks = list(chat(client, stream=True))

    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_same_holds_for_plain_completions(client):
    complete(client)
    whole = complete(client)

    chunks = list(complete(client, stream=True))

    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("make", [chat, complete])
def test_usage_comes_in_one_last_chunk_without_choices_and_equals_the_whole_answers(client, make):
    whole = make(client)

    *body, last = make(client, stream=True, stream_options={"include_usage": True})

    assert last.choices == []
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.usage is None and chunk.choices for chunk in body)


def test_usage_counts_the_tokens_that_the_tokenizer_counts(client, http):
    counted = http.post("/tokenize", json={"messages": ASK}).json()

    usage = chat(client, max_tokens=7, extra_body={"ignore_eos": True}).usage

    assert usage.prompt_tokens == counted["count"] == len(counted["tokens"])
    assert usage.completion_tokens == 7


def test_a_repeated_prompt_is_reported_as_cached(client):
    fresh = [{"role": "user", "content": "A prompt that no other test sends, 83121."}]
    first = chat(client, messages=fresh).usage
    second = chat(client, messages=fresh).usage

    assert first.prompt_tokens_details.cached_tokens < second.prompt_tokens_details.cached_tokens
    assert second.prompt_tokens_details.cached_tokens < second.prompt_tokens


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_string_across_tokens_ends_the_text_before_it(client, streamed):
    text = complete(client, max_tokens=40).choices[0].text
    stop = text[len(text) // 2 - 4 : len(text) // 2 + 5]

    if streamed:
        chunks = list(complete(client, max_tokens=40, stop=["never said ☃", stop], stream=True))
        stopped, reason = "".join(c.choices[0].text for c in chunks), chunks[-1].choices[0].finish_reason
    else:
        choice = complete(client, max_tokens=40, stop=["never said ☃", stop]).choices[0]
        stopped, reason = choice.text, choice.finish_reason

    assert stopped == text[: text.index(stop)]
    assert reason == "stop"


def test_text_held_back_for_a_stop_string_that_does_not_come_is_not_lost(client):
    text = complete(client, max_tokens=12).choices[0].text

    chunks = list(complete(client, max_tokens=12, stop=[text[-3:] + "☃"], stream=True))

    assert "".join(chunk.choices[0].text for chunk in chunks) == text


def test_chat_logprobs_have_one_entry_per_token_and_the_chosen_one_leads_when_greedy(client):
    answer = chat(client, logprobs=True, top_logprobs=3, max_tokens=8, extra_body={"ignore_eos": True})

    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens == 8
    assert b"".join(bytes(e.bytes) for e in entries).decode() == answer.choices[0].message.content
    for entry in entries:
        logprobs = [top.logprob for top in entry.top_logprobs]
        assert entry.logprob == logprobs[0]
        assert logprobs == sorted(logprobs, reverse=True)
        assert len(logprobs) == 3
        assert all(value <= 0 for value in logprobs)


def test_streamed_logprobs_are_the_same_as_whole_ones(client):
    options = {"logprobs": True, "top_logprobs": 2, "max_tokens": 8}
    chat(client, **options)
    whole = chat(client, **options).choices[0].logprobs.content

    streamed = [
        entry
        for chunk in chat(client, stream=True, **options)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content
    ]

    assert [entry.token for entry in streamed] == [entry.token for entry in whole]
    for one, other in zip(streamed, whole, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.1)  # the two need not share a batch


def test_completion_logprobs_line_up_with_the_text(client):
    choice = complete(client, logprobs=2, max_tokens=6).choices[0]

    assert "".join(choice.logprobs.tokens) == choice.text
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset, strict=True):
        assert choice.text[offset : offset + len(token)] == token
    assert all(len(tops) == 2 for tops in choice.logprobs.top_logprobs)
    assert len(choice.logprobs.token_logprobs) == 6


def test_the_likeliest_tokens_of_a_completion_keep_their_figures_and_the_drawn_one_is_among_them():
    top = ((1, b"", -0.5), (2, b"a", -1.0), (3, b"", -2.0))  # two control tokens, spelled alike
    entry = TokenLogprob(token=4, text=b"drawn", logprob=-3.0, top=top)

    (choice,) = CompletionFormat("m", with_logprobs=True, include_usage=False).chunk(
        0, Delta(request_id="x", logprobs=(entry,)), offset=0
    )["choices"]

    assert choice["logprobs"]["top_logprobs"] == [{"": -0.5, "a": -1.0, "drawn": -3.0}]


def test_no_logprobs_unless_asked(client):
    assert chat(client).choices[0].logprobs is None
    assert complete(client).choices[0].logprobs is None


def even_odds(client, http, prompt, letters):
    """The biases under which each of these letters is as likely as any other, and nothing else is likely."""
    odds = {}
    for letter in letters:
        (token,) = http.post("/tokenize", json={"prompt": letter, "add_special_tokens": False}).json()[
            "tokens"
        ]
        said = complete(
            client, prompt=prompt, max_tokens=1, logprobs=0, logit_bias={str(token): 100}
        ).choices[0]
        assert said.text == letter
        odds[str(token)] = said.logprobs.token_logprobs[0]  # the model's own, whatever the bias
    return {token: 50 + max(odds.values()) - logprob for token, logprob in odds.items()}


def test_a_seed_repeats_a_draw_and_zero_is_a_seed(client, http):
    # How likely a token is must not hang on the weights; and with few tokens there are few edges between
    # their shares, over which rounding can move a draw.
    bias = even_odds(client, http, "Zebra", "abcdefghijklmnop")

    def draws(seeds):
        options = {"prompt": "Zebra", "temperature": 1, "max_tokens": 1, "logit_bias": bias}
        return [complete(client, seed=seed, **options).choices[0].text for seed in seeds]

    draws([None])  # computes the prompt, which all others find in the prefix cache

    # A draw can flip where rounding moves a probability across it, so one of them may differ, not more.
    first, again = draws(range(10)), draws(range(10))
    assert sum(one == other for one, other in zip(first, again, strict=True)) >= 9
    assert len(set(first)) > 4
    zeros = draws([0] * 6)
    assert max(map(zeros.count, zeros)) >= 5
    free = draws([None] * 6)
    assert max(map(free.count, free)) < 5


def test_a_bias_and_penalties_decide_what_is_said_streamed_or_not(client, http):
    (word,) = http.post("/tokenize", json={"prompt": "a", "add_special_tokens": False}).json()["tokens"]
    biased = complete(client, logit_bias={str(word): 100}, max_tokens=5)
    assert biased.choices[0].text == "aaaaa"

    # Where the end is punished away all that is left is nearly tied; what is said there is decided by a bias.
    towards = {"logit_bias": {str(word): 10}}
    punished = {"frequency_penalty": 2, "presence_penalty": 1.5, "extra_body": {"repetition_penalty": 50.0}}
    complete(client, **punished, **towards)
    whole = complete(client, **punished, **towards).choices[0].text
    streamed = complete(client, **punished, **towards, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole
    plain = complete(client, **towards).choices[0].text
    assert whole == plain + "a"


def test_each_of_n_choices_has_its_own_index_text_and_seed(client):
    first = complete(client, n=3, temperature=2, seed=5)  # at 1 a sure model may say the same thing twice
    again = complete(client, n=3, temperature=2, seed=5)

    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len({choice.text for choice in first.choices}) == 3
    assert [c.finish_reason for c in first.choices] == ["length"] * 3
    assert first.usage.completion_tokens == 3 * 24
    assert first.usage.prompt_tokens == again.usage.prompt_tokens == complete(client).usage.prompt_tokens


def test_streamed_choices_are_kept_apart_by_their_index(client):
    texts = {0: "", 1: ""}
    reasons = {}
    for chunk in complete(client, n=2, stream=True, temperature=0):
        choice = chunk.choices[0]
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason

    assert texts[0] == texts[1] != ""
    assert reasons == {0: "length", 1: "length"}


def test_many_prompts_in_one_request_are_answered_in_their_order(client, http):
    prompts = [as_prompt(f"What is {thing}?") for thing in ("a KV cache", "a token", "batching")]
    alone = [complete(client, prompt=prompt).choices[0].text for prompt in prompts]
    ids = [http.post("/tokenize", json={"prompt": prompt}).json()["tokens"] for prompt in prompts]

    together = complete(client, prompt=prompts, max_tokens=4)
    by_ids = complete(client, prompt=ids, max_tokens=4)
    one_by_ids = complete(client, prompt=ids[1], max_tokens=4)

    for index, text in enumerate(alone):
        assert text.startswith(together.choices[index].text)
        assert text.startswith(by_ids.choices[index].text)
    assert alone[1].startswith(one_by_ids.choices[0].text)
    assert together.usage.prompt_tokens == sum(len(prompt) for prompt in ids)


def test_max_completion_tokens_is_max_tokens_by_its_new_name(client):
    answer = chat(client, max_tokens=None, max_completion_tokens=3, extra_body={"ignore_eos": True})

    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_without_a_limit_chat_takes_the_rest_of_the_context_and_completions_sixteen(client):
    free = {"ignore_eos": True}
    chatted = chat(client, max_tokens=None, extra_body=free).usage
    completed = complete(client, max_tokens=None, extra_body=free).usage

    assert chatted.total_tokens == client.models.retrieve("pocket").max_model_len
    assert completed.completion_tokens == 16


def test_parts_of_text_and_the_developer_role_are_understood(client):
    plain = chat(client, messages=[{"role": "system", "content": "a\nb"}, *ASK], max_tokens=5)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]

    listed = chat(client, messages=[{"role": "developer", "content": parts}, *ASK], max_tokens=5)

    assert listed.usage.prompt_tokens == plain.usage.prompt_tokens


def test_the_model_list_names_what_is_served(client):
    (model,) = client.models.list().data

    assert model.id == "pocket"
    assert model.quantization == "q4_k_m"
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.models.retrieve("nope")
