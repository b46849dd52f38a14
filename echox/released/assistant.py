"""Question in, answer out, with a released checkpoint: the whole path of one request in one place; open this first.

    audio --encoder--> frames --front end--> embeddings --+
    text  --prompt---> ids -----------------embeddings ---+--> LLM --> text, one state and one score per token
    scores --segmenter--> segments of states --T2C--> unit tokens --parse--> units --vocoder--> 16 kHz samples

Nothing of a request is kept on the assistant, so requests may interleave. Spec sections 2, 3, 6 and 9.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echox.audio import SAMPLE_RATE, Sound, check_samples, load_audio, read_question
from echox.errors import ConfigError, InputError, ModelError
from echox.generate.text_stream import TextStream
from echox.generate.types import Piece, Question, Reply, collect
from echox.hub import resolve_model
from echox.models.vocoder import UnitVocoder
from echox.released.config import ReleasedConfig
from echox.released.decode import Sampling, decode
from echox.released.encoder import WindowEncoder
from echox.released.load import DTYPES, load_model, open_files
from echox.released.locate import find_encoder, find_vocoder, whisper_settings
from echox.released.model import PromptEmbeddings, ReleasedModel
from echox.released.prompt import SYSTEM, Turn, build_prompt
from echox.released.streaming import ReleasedPolicy, ReleasedSegmenter, cut_segments
from echox.released.t2c import MAX_UNIT_TOKENS, T2CDecoder
from echox.released.tokens import ReleasedTokens, clipped, load_tokenizer, parse_units

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReleasedOptions:
    """How to answer: the released numbers, and our changes where they cost nothing. `as_released()` turns these off.

    temperature 0 is greedy; full_t2c lets the T2C choose text tokens too; every_stop ends at any Llama-3 stop token;
    prompt_limit cuts the prompt's tail (ids); first_window ignores audio after 30 s.
    """

    system: str = SYSTEM
    temperature: float = 0.2
    top_p: float = 0.9
    max_new_tokens: int = 512
    max_unit_tokens: int = MAX_UNIT_TOKENS
    policy: ReleasedPolicy = field(default_factory=ReleasedPolicy)
    full_t2c: bool = False
    every_stop: bool = True
    prompt_limit: int | None = None
    first_window: bool = False

    def as_released(self) -> "ReleasedOptions":
        """Return the same with the released limits: full T2C set, one stop token, 1024 prompt ids, 30 s of audio."""
        return replace(self, full_t2c=True, every_stop=False, prompt_limit=1024, first_window=True)


class ReleasedAssistant:
    """A released EchoX or Soundwave model with its encoder and vocoder, behind SpeechAssistant's interface."""

    def __init__(
        self,
        model: ReleasedModel,
        tokens: ReleasedTokens,
        encoder: WindowEncoder,
        vocoder: UnitVocoder | None,
        options: ReleasedOptions | None = None,
    ) -> None:
        self.model, self.tokens, self.encoder, self.vocoder = model, tokens, encoder, vocoder
        self.options = options or ReleasedOptions()
        self.load_seconds = 0.0
        self.t2c: T2CDecoder | None = None
        if model.unit_translator is not None:
            self.t2c = T2CDecoder(model.unit_translator, tokens.t2c(), full=self.options.full_t2c)

    @classmethod
    def load(
        cls,
        model: str | Path,
        encoder: str | Path | None = None,
        vocoder: str | Path | None = None,
        device: str = "auto",
        dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        quantize: str | None = None,
        options: ReleasedOptions | None = None,
    ) -> "ReleasedAssistant":
        """Load a folder or hub name with the encoder and vocoder beside it; ModelError says what is missing."""
        began = time.perf_counter()
        folder = resolve_model(model)
        config = ReleasedConfig.load(folder)
        place = pick_device(device)
        kind = pick_dtype(dtype, place)
        whisper = _load_encoder(folder, config, encoder, place, kind)
        network = load_model(folder, place, kind, device_map=device_map, quantize=quantize)
        tokens = ReleasedTokens.from_tokenizer(load_tokenizer(folder), config)
        voice = find_vocoder(folder, vocoder).to(place) if config.has_aligner else None
        assistant = cls(network, tokens, whisper, voice, options)
        assistant.load_seconds = time.perf_counter() - began
        return assistant

    @property
    def sample_rate(self) -> int:
        """Hz of the answers."""
        return self.vocoder.config.sample_rate if self.vocoder is not None else SAMPLE_RATE

    def ask(
        self,
        question: Sound | Question | None = None,
        typed: str | None = None,
        text_only: bool = False,
        max_seconds: float | None = None,
        seed: int = 0,
        history: Sequence[Turn] = (),
        sample_rate: int | None = None,
    ) -> Reply:
        """Answer one question, spoken (any sound that `read_question` takes), typed, or both; `max_seconds` caps the spoken
        answer.
        """
        pieces = self.stream(question, typed, text_only, max_seconds, seed, history, sample_rate)
        return collect(Question.of(question, typed).name, pieces, self.sample_rate, not text_only)

    def stream(
        self,
        question: Sound | Question | None = None,
        typed: str | None = None,
        text_only: bool = False,
        max_seconds: float | None = None,
        seed: int = 0,
        history: Sequence[Turn] = (),
        sample_rate: int | None = None,
    ) -> Iterator[Piece]:
        """Yield text as it is decided and each segment's speech as soon as the released rule closes it."""
        self._check_voice(text_only)
        prompt = self.embed([*history, turn_of(Question.of(question, typed, sample_rate))])
        text, segmenter = TextStream(self.tokens.tokenizer), ReleasedSegmenter(self.options.policy)
        states: list[torch.Tensor] = []
        left = None if max_seconds is None else int(max_seconds * self.sample_rate)
        count = 0
        for step in decode(self.model, [prompt], self._sampling(seed), self.tokens.period):
            count += 1
            settled = text.push(step.ids[0])
            if settled:
                yield Piece(settled)
            if text_only:
                continue
            states.append(step.states_BH[0])
            segment = segmenter.push(step.scores[0])
            if segment is not None:
                left = yield from self._voice(states[slice(*segment)], left)
        rest = text.flush()
        if rest:
            yield Piece(rest)
        last = segmenter.finish()
        if last is not None:
            left = yield from self._voice(states[slice(*last)], left)
        yield Piece(finish="length" if count == self.options.max_new_tokens else "stop")

    def ask_many(
        self,
        questions: Sequence[Sound | Question],
        text_only: bool = False,
        max_seconds: float | None = None,
        seed: int = 0,
        sample_rate: int | None = None,
    ) -> list[Reply]:
        """Answer many single questions at once, spoken or typed; times are the batch's."""
        turns = [turn_of(Question.of(question, None, sample_rate)) for question in questions]
        replies = self.converse([[turn] for turn in turns], text_only, seed)
        if max_seconds is not None:
            limit = int(max_seconds * self.sample_rate)
            replies = [replace(r, audio=None if r.audio is None else r.audio[:limit]) for r in replies]
        return replies

    def converse(self, conversations: Sequence[Sequence[Turn]], text_only: bool = False, seed: int = 0) -> list[Reply]:
        """Answer several conversations in one batch, segments of all of them decoded together."""
        self._check_voice(text_only)
        if not conversations:
            return []
        began = time.perf_counter()
        prompts = [self.embed(turns) for turns in conversations]
        ids, states, scores = ([[] for _ in prompts] for _ in range(3))
        for step in decode(self.model, prompts, self._sampling(seed), self.tokens.period):
            for row, is_open in enumerate(step.is_open):
                if is_open:
                    ids[row].append(step.ids[row])
                    states[row].append(step.states_BH[row])
                    scores[row].append(step.scores[row])
        owners = [(row, cut) for row in range(len(prompts)) for cut in cut_segments(scores[row], self.options.policy)]
        spoken: list[list[int]] = [[] for _ in prompts]
        waves = [[np.zeros(0, np.float32)] for _ in prompts]
        if not text_only:
            segments = [torch.stack(states[row][slice(*cut)]) for row, cut in owners]
            for (row, _), units in zip(owners, self.units(segments), strict=True):
                spoken[row] += units
                waves[row].append(self.speak(units))
        took = time.perf_counter() - began
        return [
            Reply(
                question=turns[-1].text,
                text=self.tokens.tokenizer.decode(
                    ids[row], skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
                audio=None if text_only else np.concatenate(waves[row]),
                sample_rate=self.sample_rate,
                units=spoken[row],
                wall_seconds=took,
                first_audio_seconds=None if text_only else took,
                finish="length" if len(ids[row]) == self.options.max_new_tokens else "stop",
            )
            for row, turns in enumerate(conversations)
        ]

    def say(self, text: str, max_seconds: float | None = None) -> Reply:
        """Speak a text through the T2C's text input (spec 3.2), sentence marks and all; InputError when it is empty."""
        if not text.strip():
            raise InputError("there is nothing to say: give some text.")
        self._check_voice(text_only=False)
        began = time.perf_counter()
        decoder = self._decoder()
        ids = self.tokens.t2c_text(text)
        mask = torch.tensor(ids) != self.tokens.eot
        inputs = decoder.from_ids(ids)
        tokens = decoder.generate([inputs], [mask.to(inputs.device)], self.options.max_unit_tokens)[0]
        units = self._parse(tokens)
        wave = self.speak(units)
        wave = wave if max_seconds is None else wave[: int(max_seconds * self.sample_rate)]
        took = time.perf_counter() - began
        return Reply(text, text, wave, self.sample_rate, units, wall_seconds=took, first_audio_seconds=took)

    def embed(self, turns: Sequence[Turn]) -> PromptEmbeddings:
        """Return the LLM's input for a conversation: prompt ids with each audio's embeddings in place."""
        prompt = build_prompt(self.tokens, turns, self.options.system, self.options.prompt_limit)
        speech = [self.listen(audio) for audio in prompt.audios]
        return self.model.embed_prompt(prompt.ids, speech, self.tokens.audio_patch, self.tokens.eot)

    def listen(self, audio: str | Path | np.ndarray) -> torch.Tensor:
        """Return the embeddings (v, H) of one audio, windows of 30 s one after the other."""
        if isinstance(audio, np.ndarray):
            check_samples(audio, SAMPLE_RATE, "the question")
        wave = audio if isinstance(audio, np.ndarray) else load_audio(audio)
        windows = self.encoder.windows(wave)
        if self.options.first_window:
            windows = windows[:1]
        return torch.cat(self.model.model.embed_speech(self.encoder(windows)))

    def units(self, segments: list[torch.Tensor]) -> list[list[int]]:
        """Return the units of several segments of LLM states (N, H) each, decoded in one batch."""
        decoder = self._decoder()
        inputs = [decoder.from_states(states) for states in segments]
        return [self._parse(tokens) for tokens in decoder.generate(inputs, max_new_tokens=self.options.max_unit_tokens)]

    def speak(self, units: list[int]) -> np.ndarray:
        """Return the samples of units, float32 in [-1, 1]; ModelError without a vocoder."""
        if self.vocoder is None:
            raise ModelError("this checkpoint was loaded without a vocoder: ask with text_only=True.")
        return clipped(self.vocoder.speak(units))

    def _voice(self, states: list[torch.Tensor], left: int | None) -> Iterator[Piece]:
        """Yield one segment's speech and return the samples that may still be spoken."""
        if left is not None and left <= 0:
            return left
        units = self.units([torch.stack(states)])[0]
        wave = self.speak(units) if units else np.zeros(0, np.float32)
        wave = wave if left is None else wave[:left]
        yield Piece(audio=wave, units=tuple(units))
        return None if left is None else left - len(wave)

    def _parse(self, tokens: list[int]) -> list[int]:
        text = self.tokens.unit_text(tokens)
        codebook = self.vocoder.config.num_units if self.vocoder is not None else 1000
        units = parse_units(text, codebook)
        dropped = len(parse_units(text, 10**9)) - len(units)
        if dropped:
            log.warning(
                "%d units outside the codebook of %d were dropped, as the released code does.", dropped, codebook
            )
        return units

    def _decoder(self) -> T2CDecoder:
        self.model.translator()
        assert self.t2c is not None  # noqa: S101  for the type checker: made with the translator
        return self.t2c

    def _check_voice(self, text_only: bool) -> None:
        if not text_only:
            self.model.translator()
            if self.vocoder is None:
                raise ModelError("this checkpoint was loaded without a vocoder: ask with text_only=True.")

    def _sampling(self, seed: int) -> Sampling:
        options = self.options
        stops = self.tokens.stops if options.every_stop else (self.tokens.eot,)
        return Sampling(stops, options.max_new_tokens, options.temperature, options.top_p, seed)


def turn_of(question: Question) -> Turn:
    """Return the user's turn, speech, text or both; InputError when there is neither."""
    if question.sound is None and not (question.typed or "").strip():
        raise InputError("there is no question: give audio, typed text, or both.")
    sounds = () if question.sound is None else (read_question(question.sound, question.sample_rate, None),)
    return Turn("user", question.typed or "", sounds)


def pick_device(device: str) -> torch.device:
    """Return the device asked for; "auto" prefers CUDA, then MPS, then the CPU."""
    kinds = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if kinds[kind]))
    if not kinds.get(device.partition(":")[0], False):
        raise ConfigError(
            f"device {device} is not available here: choose {', '.join(k for k, there in kinds.items() if there)}."
        )
    return torch.device(device)


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the dtype asked for; by default float32 on the CPU, bfloat16 on CUDA, float16 elsewhere."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is not None:
        if dtype not in DTYPES:
            raise ConfigError(f"dtype {dtype!r} is unknown: choose {', '.join(DTYPES)}.")
        return DTYPES[dtype]
    return {"cpu": torch.float32, "cuda": torch.bfloat16}.get(device.type, torch.float16)


def _load_encoder(
    folder: Path, config: ReleasedConfig, given: str | Path | None, device: torch.device, dtype: torch.dtype
) -> WindowEncoder:
    """Load the encoder that the checkpoint carries (Soundwave) or that lies beside it, and check its width."""
    files = open_files(folder, config)
    if given is None and "model.audio_tower.conv1.weight" in files.shapes:
        where, whisper = folder, WindowEncoder.from_checkpoint(whisper_settings(files.shapes), files, device, dtype)
    else:
        where = find_encoder(folder, config, given)
        whisper = WindowEncoder.load(where, device, dtype)
    whisper.check_width(config.adapter_size, str(where))
    return whisper
