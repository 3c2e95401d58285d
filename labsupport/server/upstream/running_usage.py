"""What a stream has used so far, where each of its chunks tells that of its own choice.

Right means: of a stream that is left or breaks off, the ledger has what was used up to the last chunk that
came, each prompt once and the completions of all its choices together. vLLM tells it so, if asked with
`continuous_usage_stats`, which OpenAI's API does not know. Cached tokens it tells only at the end: until then
none count as cached.
Source: vLLM's `chat_completion_stream_generator` and `completion_stream_generator`.
"""

from __future__ import annotations

from labsupport.server.usage import Usage


class RunningUsage:
    """Of one request, with choices in the order of its prompts, `choices_per_prompt` to each."""

    def __init__(self, choices_per_prompt: int) -> None:
        self._choices_per_prompt = choices_per_prompt
        self._of_choice: dict[int, Usage] = {}

    def saw(self, index: int, usage: Usage) -> Usage:
        """The sum, once choice `index` is known to have used `usage`, its prompt included."""
        self._of_choice[index] = usage
        prompts = {
            choice // self._choices_per_prompt: used.prompt_tokens for choice, used in self._of_choice.items()
        }
        return Usage.of(
            prompt_tokens=sum(prompts.values()),
            cached_tokens=0,
            completion_tokens=sum(used.completion_tokens for used in self._of_choice.values()),
        )
