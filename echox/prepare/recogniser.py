"""A Whisper model in CTranslate2's layout: what judges hear with, and what transcribes and filters training data.

Batches are decoded without timestamps or fallback temperatures, so that a transcript depends on the audio alone; a recording heard
by itself goes through faster-whisper's own loop, which says how sure it is and when each word was said.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echox.errors import ConfigError, InputError, ModelError, require
from echox.prepare.stretches import Word

MAX_TOKENS = 448  # Whisper's own limit: its decoder positions


@dataclass(frozen=True)
class Heard:
    """The transcript of a clip; `log_probability` is the mean over its tokens (0 is certain)."""

    text: str
    log_probability: float


class Whisper:
    """A loaded model, int8 on the CPU and float16 elsewhere; one that `translates` writes English whatever is said."""

    def __init__(
        self, folder: Path, device: str = "cpu", language: str = "en", beam: int = 1, translates: bool = False
    ) -> None:
        whisper = require("faster_whisper", "prepare")
        if not (folder / "model.bin").is_file():
            raise InputError(f"{folder} holds no model.bin: give the folder of a CTranslate2 Whisper model.")
        self.kind, self.beam = "int8" if device == "cpu" else "float16", beam
        try:
            self._loaded = whisper.WhisperModel(str(folder), device=device, compute_type=self.kind)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{folder} cannot be loaded as a Whisper model ({error}): fetch it again.") from error
        tokenizer, multilingual = self._loaded.hf_tokenizer, self._loaded.model.is_multilingual
        task = "translate" if translates else "transcribe"
        try:
            words = whisper.tokenizer.Tokenizer(tokenizer, multilingual, task, language)
        except ValueError as error:
            raise ConfigError(f"{folder} does not know the language {language!r} ({error}).") from error
        self._prompt = [*words.sot_sequence, words.no_timestamps]
        self._options = {"language": language, "beam_size": beam, "condition_on_previous_text": False, "task": task}

    def read(self, waves: list[np.ndarray]) -> list[str]:
        """Return the words of float32 waves at 16 kHz of one length, at most 30 s."""
        from ctranslate2 import StorageView

        from echox.features.logmel import log_mel

        model, tokenizer = self._loaded.model, self._loaded.hf_tokenizer
        mel_BFT, _ = log_mel(waves, model.n_mels)
        features = StorageView.from_array(np.ascontiguousarray(mel_BFT.numpy()))
        prompts = [self._prompt] * len(waves)
        found = model.generate(features, prompts, beam_size=self.beam, max_length=MAX_TOKENS)
        return [tokenizer.decode(result.sequences_ids[0]) for result in found]

    def hear(self, wave: np.ndarray) -> Heard:
        """Return the text of a mono float32 wave [samples] at 16 kHz; segments are weighted by their duration."""
        segments = list(self._loaded.transcribe(wave, without_timestamps=True, **self._options)[0])
        text = " ".join(segment.text.strip() for segment in segments)
        spans = [max(segment.end - segment.start, 1e-3) for segment in segments]
        total = sum(span * segment.avg_logprob for span, segment in zip(spans, segments, strict=True))
        return Heard(text, total / sum(spans) if spans else -math.inf)

    def words(self, wave: np.ndarray) -> list[Word]:
        """Return the words of a mono float32 wave [samples] at 16 kHz, with their times."""
        segments, _ = self._loaded.transcribe(wave, word_timestamps=True, **self._options)
        found = [word for segment in segments for word in segment.words or ()]
        return [Word(word.word, word.start, word.end, word.probability) for word in found]
