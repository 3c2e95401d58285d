"""The glossary of the course: each term with the one sentence that the pocket model knows for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """`phrase` fits after "what is"; `definition` is one sentence."""

    phrase: str
    definition: str


TERMS: tuple[Term, ...] = tuple(
    Term(*(part.strip() for part in line.split("|")))
    for line in """
a KV cache | It keeps the keys and values of past tokens, so that each new token need not compute them again.
quantization | It stores weights in fewer bits, which saves memory and costs some accuracy.
a token | It is a piece of text from the vocabulary, the unit that a language model reads and writes.
a tokenizer | It splits text into tokens and turns tokens back into text.
a vocabulary | It is the fixed list of tokens that a model knows.
a weight | It is one number in a model, learned in training.
a parameter | It is a number that training sets; weights are parameters.
inference | It is running a trained model to get an answer; the weights do not change.
training | It is changing the weights, step by step, so that the loss falls.
fine-tuning | It is training a finished model a little further on your own data.
prefill | It is the phase that reads the whole prompt at once and fills the KV cache.
decode | It is the phase that writes the answer, one token at a time.
time to first token | It is the wait from the arrival of a request to its first token.
inter-token latency | It is the gap between one token of an answer and the next.
throughput | It is how many tokens a server makes per second, over all requests.
goodput | It is how many requests per second meet every latency goal.
continuous batching | It lets requests join and leave the running batch at every step.
static batching | It runs a fixed group of requests together until the longest one ends.
chunked prefill | It cuts a long prompt into pieces, so that other requests are not stalled.
a prefix cache | It shares the KV cache of a common beginning between requests.
a context window | It is the largest number of tokens that a model can attend to at once.
temperature | It scales the logits before sampling; low values make the choice more certain.
top-k sampling | It draws the next token from the k most probable ones.
top-p sampling | It draws from the smallest set of tokens whose probabilities add up to p.
greedy decoding | It always takes the most probable next token.
a logit | It is the raw score of a token before the softmax.
softmax | It turns scores into probabilities that add up to one.
perplexity | It says how surprised a model is by a text; lower is better.
attention | It lets each token take information from the tokens before it.
grouped-query attention | It lets several query heads share one pair of key and value heads.
a transformer | It is a network that stacks layers of attention and feed-forward blocks.
an embedding | It is the vector that stands for a token inside the model.
tensor parallelism | It splits each layer over several GPUs, which then add up their partial results.
pipeline parallelism | It puts different layers on different GPUs and passes the activations on.
all-reduce | It adds up a tensor over all GPUs and gives each of them the sum.
memory bandwidth | It is how many bytes per second can be read from memory; it limits decode speed.
VRAM | It is the memory on a graphics card; weights and KV cache must fit in it.
unified memory | It is one memory that CPU and GPU share, so nothing is copied between them.
a tensor core | It is a unit of a GPU that multiplies small matrices in one go.
offloading | It keeps some layers in CPU memory because the GPU has no room for them.
a roofline | It shows the best speed that compute and memory bandwidth allow.
arithmetic intensity | It is the number of operations done per byte read from memory.
a cold start | It is the time to fetch, load and warm up a model before the first request.
autoscaling | It adds and removes servers as the load changes.
back-pressure | It refuses or delays new requests when the server is full.
GGUF | It is the file format of llama.cpp, with weights, tokenizer and settings in one file.
safetensors | It is a file format for tensors that can be mapped into memory and runs no code.
memory mapping | It lets a program read a file as if it were already in memory.
open weights | It means that you can download the weights, but not all that made them.
a closed model | It is a model that you can only call; its weights stay with the vendor.
an open source model | It comes with weights, training code and data, so that you can make it again.
a LoRA adapter | It is a small set of extra weights that changes a model without touching the original.
a chat template | It is the pattern that turns messages into the text that the model was trained on.
a stop string | It is a text that ends the answer as soon as it appears.
an out-of-memory error | It means that a program asked for more memory than is left.
speculative decoding | It lets a small model guess tokens that the large model then checks at once.
a mixture of experts | It is a model that uses only a few of its feed-forward blocks for each token.
utilisation | It is the share of the time in which the hardware does useful work.
a managed API | It is a model that somebody else runs for you, paid by the token.
a service level objective | It is the goal for latency or availability that a service must meet.
""".strip().splitlines()
)
