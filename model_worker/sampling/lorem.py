"""A sampler without a model: seeded, readable words, for tests of the web app and for trying the whole system out."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from contract.checkpoint_files import CheckpointError, CheckpointFiles, inspect_checkpoint
from contract.sampling import Lease, PairJob, ResponseSpec, SampledResponse
from contract.vocabulary import FinishReason
from model_worker.sampling.interface import MAX_REDRAWS, JobError, SamplerFacts, Sink
from model_worker.sampling.seeds import redraw_seed, splitmix64
from model_worker.sampling.stepping import NotServedError, Stepper
from model_worker.settings import WorkerSettings

ENGINE: Final = "lorem/1"
# A response that ends by itself has at least and at most so many words.
_SHORTEST, _LONGEST = 12, 48
_SENTENCE: Final = 9

# A string, since a list of words would fill a page.
WORDS: Final = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea commodo "
    "consequat duis aute irure in reprehenderit voluptate velit esse cillum fugiat nulla pariatur"
).split()


def lorem_checkpoint(name: str = "lorem") -> CheckpointFiles:
    """The checkpoint that this sampler says it serves; its digests depend on the name alone."""
    digests = {part: hashlib.sha256(f"{name}/{part}".encode()).hexdigest() for part in ("weights", "words", "template")}
    return CheckpointFiles(
        name=name,
        architecture="Lorem",
        digest=digests["weights"],
        tokenizer_digest=digests["words"],
        template_digest=digests["template"],
        weight_bytes=0,
    )


class LoremSampler:
    """A :class:`~model_worker.sampling.interface.Sampler` that makes words up, one each ``word_s`` seconds.

    It serves any checkpoint that passes inspection, and draws other words for another one: promotion, with its
    refusals and its draining, can be tried without torch.
    """

    def __init__(
        self,
        *,
        max_pairs: int,
        word_s: float = 0.02,
        names: tuple[str, ...] = ("lorem",),
        checkpoints: tuple[CheckpointFiles, ...] = (),
    ) -> None:
        served = checkpoints or tuple(lorem_checkpoint(name) for name in names)
        self._word_s = word_s
        self._max_pairs = max_pairs
        self._lock = threading.Lock()
        self._served = {files.digest: files for files in served}
        self._draining: frozenset[str] = frozenset()
        self._words_said = 0
        self._stepper = Stepper(self._start, max_pairs=max_pairs, name="lorem")

    @classmethod
    def from_settings(cls, settings: WorkerSettings, files: Mapping[Path, CheckpointFiles]) -> Self:
        """Serves the checkpoints of the folders, or a made-up one where there is none."""
        return cls(max_pairs=settings.max_pairs, word_s=settings.lorem_word_s, checkpoints=tuple(files.values()))

    def facts(self) -> SamplerFacts:
        """Engine and checkpoints."""
        with self._lock:
            served = tuple(files for digest, files in self._served.items() if digest not in self._draining)
        return SamplerFacts(
            engine=ENGINE, versions={}, device="none", dtype="none", max_pairs=self._max_pairs, checkpoints=served
        )

    def capacity(self) -> int:
        """How many more pairs are taken."""
        return self._stepper.capacity()

    def submit(self, job: PairJob, sink: Sink) -> None:
        """Start a pair."""
        self._stepper.submit(job, sink)

    def cancel(self, lease: Lease) -> None:
        """Stop a pair before its next word."""
        self._stepper.cancel(lease)

    def tokens_drawn(self) -> int:
        """How many words were said."""
        return self._words_said

    def swap(self, folder: Path, files: CheckpointFiles, *, instead_of: str | None) -> None:
        """Serve another checkpoint, once the pairs of the one that it replaces have ended.

        Raises:
            CheckpointError: The folder cannot be served, or its content has changed.

        """
        if inspect_checkpoint(folder).digest != files.digest:
            msg = f"{folder} has changed since it was looked at: it no longer is {files.digest[:12]}."
            raise CheckpointError(msg)
        if instead_of is not None:
            self._drain(instead_of)
        with self._lock:
            kept = {digest: served for digest, served in self._served.items() if digest != instead_of}
            self._served = kept | {files.digest: files}
            self._draining = frozenset()

    def close(self, drain_s: float) -> None:
        """Drain, cancel what is left, end the thread."""
        self._stepper.close(drain_s)

    def _drain(self, digest: str) -> None:
        with self._lock:
            self._draining = frozenset({digest})
        if not self._stepper.wait_for_end_of(lambda job: any(spec.checkpoint_digest == digest for spec in job.specs)):
            msg = "This model worker is stopping."
            raise CheckpointError(msg)

    def _start(self, job: PairJob, say: Callable[[int, str], None], claimed_at: float) -> "_LoremPair":
        served = {files.digest for files in self.facts().checkpoints}
        unknown = [spec.checkpoint_digest for spec in job.specs if spec.checkpoint_digest not in served]
        if unknown:
            msg = f"This model worker does not serve the checkpoint {unknown[0][:12]}."
            raise NotServedError(msg)
        if not job.messages:
            msg = "The conversation has no message."
            raise JobError(msg)

        def say_and_count(spec_index: int, word: str) -> None:
            self._words_said += 1
            say(spec_index, word)

        return _LoremPair(job, say_and_count, claimed_at, self._word_s)


class _LoremPair:
    def __init__(self, job: PairJob, say: Callable[[int, str], None], claimed_at: float, word_s: float) -> None:
        self._job = job
        self._say = say
        self._claimed_at = claimed_at
        self._word_s = word_s
        self._drawn = _distinct_responses(job)
        self._steps = 0
        self._first_word_s = 0.0

    def step(self) -> tuple[SampledResponse, ...] | None:
        """Say the next word of each response, and wait as a model would compute."""
        time.sleep(self._word_s)
        for spec_index, (_, words) in enumerate(self._drawn):
            if self._steps < len(words):
                self._say(spec_index, words[self._steps])
        self._steps += 1
        self._first_word_s = self._first_word_s or time.monotonic() - self._claimed_at
        if self._steps < max(len(words) for _, words in self._drawn):
            return None
        return tuple(
            self._response(spec, seed, words) for spec, (seed, words) in zip(self._job.specs, self._drawn, strict=True)
        )

    def _response(self, spec: ResponseSpec, seed: int, words: list[str]) -> SampledResponse:
        return SampledResponse(
            response_id=spec.response_id,
            checkpoint_digest=spec.checkpoint_digest,
            seed=seed,
            text="".join(words),
            token_ids=tuple(WORDS.index(word.strip(" .,").lower()) for word in words),
            prompt_digest=hashlib.sha256(_prompt_of(self._job).encode()).hexdigest(),
            stop_token_ids=(),
            prompt_tokens=sum(len(message.content.split()) for message in self._job.messages),
            completion_tokens=len(words),
            finish_reason=FinishReason.STOP if words[-1].endswith(".") else FinishReason.LENGTH,
            sum_logprob=0.0,
            first_token_s=self._first_word_s,
            total_s=time.monotonic() - self._claimed_at,
            engine=ENGINE,
            dtype="none",
            device="none",
        )


def _prompt_of(job: PairJob) -> str:
    return "\n".join(message.content for message in job.messages)


def _distinct_responses(job: PairJob) -> list[tuple[int, list[str]]]:
    """The seed and the words of each response; equal ones are drawn again, as a real sampler does."""
    prompt = _prompt_of(job)
    drawn: list[tuple[int, list[str]]] = []
    for spec in job.specs:
        seed = spec.seed
        for redraw in range(MAX_REDRAWS + 1):
            seed = redraw_seed(spec.seed, redraw) if redraw else spec.seed
            words = list(_words(prompt, spec, seed))
            if spec.temperature == 0 or all(words != others for _, others in drawn):
                break
        drawn.append((seed, words))
    return drawn


def _words(prompt: str, spec: ResponseSpec, seed: int) -> Iterator[str]:
    """Words with the white space before them: those of checkpoint, prompt and, above temperature 0, seed."""
    key = int.from_bytes(hashlib.sha256(f"{spec.checkpoint_digest}{prompt}".encode()).digest()[:8], "big")
    key = splitmix64(key ^ (splitmix64(seed) if spec.temperature > 0 else 0))
    length = _SHORTEST + key % (_LONGEST - _SHORTEST + 1)
    for index in range(min(length, spec.max_new_tokens)):
        word = WORDS[splitmix64(key ^ (index + 1)) % len(WORDS)]
        is_first = index % _SENTENCE == 0
        is_last = index == length - 1 or (index + 1) % _SENTENCE == 0
        space = "" if index == 0 else " "
        yield space + (word.capitalize() if is_first else word) + ("." if is_last else "")
