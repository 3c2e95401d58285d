"""What a request has been told so far: turns the scheduler's progress into deltas."""

from __future__ import annotations

from collections.abc import Callable

from labsupport.engine.detokenizer import Detokenizer
from labsupport.engine.messages import Delta, TokenLogprob
from labsupport.engine.plan import Drawn
from labsupport.engine.scheduler import Progress, Scheduler
from labsupport.engine.sequence import Sequence


class Transcripts:
    """One detokenizer per live request; `piece` gives a token's bytes."""

    def __init__(self, scheduler: Scheduler, piece: Callable[[int], bytes]) -> None:
        self._scheduler = scheduler
        self._piece = piece
        self._detokenizers: dict[str, Detokenizer] = {}

    def deltas(self, progress: list[Progress]) -> list[Delta]:
        """One delta per drawn token; where the text reached a stop string, the sequence is ended."""
        return [self._delta(step.sequence, step.drawn) for step in progress]

    def forget(self, request_id: str) -> None:
        self._detokenizers.pop(request_id, None)

    def _delta(self, sequence: Sequence, drawn: Drawn) -> Delta:
        name = sequence.request_id
        detokenizer = self._detokenizers.get(name)
        if detokenizer is None:
            detokenizer = self._detokenizers[name] = Detokenizer(sequence.params.stop)
        text = detokenizer.push(self._piece(drawn.token))
        reason = sequence.finish_reason
        if reason and not detokenizer.stopped:
            text += detokenizer.finish()
        if detokenizer.stopped:
            self._scheduler.finish(name, "stop")
            reason = "stop"
        if reason:
            self.forget(name)
        return Delta(
            request_id=name,
            tokens=(drawn.token,),
            text=text,
            logprobs=() if sequence.params.logprobs is None else (self._logprob(drawn),),
            finish_reason=reason,
            cached_tokens=sequence.num_cached,
            queue_seconds=sequence.queue_seconds,
        )

    def _logprob(self, drawn: Drawn) -> TokenLogprob:
        return TokenLogprob(
            token=drawn.token,
            text=self._piece(drawn.token),
            logprob=drawn.logprob,
            top=tuple((token, self._piece(token), logprob) for token, logprob in drawn.top),
        )
