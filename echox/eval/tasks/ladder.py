"""`echox eval ladder`: where words are lost on the way from a text to its speech.

Every arm says the same texts, and each stands one step further from the voice that the model learned from:

    voice      the voice says the text
    segments   the voice says, one by one, the utterances of a stream: segments, or sentences where T2C goes on in them
    timed      the units of those through the vocoder, as long as they were
    copy       the same units, as long as the vocoder makes them
    t2c        the units that T2C writes: the model itself says the text

So the difference between two neighbours is what the step between them costs. A vocoder that reads the states of words is given
them in the last arm alone: there they win back some of what T2C loses.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from echox.data.manifest import read_fields
from echox.errors import ConfigError
from echox.eval.model_under_test import Failure, at_16k, attempt, sounds_of
from echox.eval.probes import parts_of
from echox.eval.questions import Item, check_questions, fingerprint, take
from echox.eval.results import Results
from echox.eval.scorers.texts import NORMALISER, errors_between
from echox.eval.tables import Items, Table, by_arm, decimals, pooled_rate, rates_between, shared
from echox.eval.tasks.speech import ReferenceVoice
from echox.generate.pauses import trimmed
from echox.models.llm import text_of_pieces, token_pieces
from echox.prepare.voices import Voice
from echox.text.prompt import encode
from echox.text.segmenter import cut_text, ends_sentence
from echox.units.extractor import extract, load_centroids
from echox.units.sequence import Units

ARMS = {
    "voice": "the voice itself, and the judge",
    "segments": "cutting",
    "timed": "units, and the vocoder",
    "copy": "durations",
    "t2c": "T2C",
}
BATCH = 8


@dataclass(frozen=True)
class Ladder:
    """A model, the voice that it learned from, and what hears its units."""

    model: Any
    voice: Voice
    units_of: Callable[[list[np.ndarray]], list[Units]]

    @classmethod
    def load(cls, model: Any, voice: Voice) -> "Ladder":
        """Return the ladder of a loaded model; ConfigError when it has no such parts, ModelError when its units do not fit."""
        parts = parts_of(model)
        if parts is None:
            raise ConfigError("this model's T2C and vocoder cannot be asked one by one: give a model folder of echox.")
        centroids_KD, meta = load_centroids(parts.folder / "units")

        def states(waves: list[np.ndarray]) -> list[np.ndarray]:
            return [found[meta.layer].float().cpu().numpy() for found in parts.encoder.encode(waves, (meta.layer,))]

        return cls(model, voice, lambda waves: extract(states, centroids_KD, waves))

    def say(self, text: str) -> dict[str, np.ndarray]:
        """Return the speech of a text by arm, float32 at 16 kHz."""
        vocoder, texts = self.model.parts.vocoder, self.utterances(text)
        said = [self._speak(one) for one in texts]
        copied = self.units_of([at_16k(wave, self.voice.sample_rate) for wave in said])
        waves = {
            "segments": said,
            "timed": [vocoder.speak(units.ids, units.durations) for units in copied],
            "copy": [vocoder.speak(units.ids) for units in copied],
        }
        rates = dict.fromkeys(waves, vocoder.config.sample_rate) | {"segments": self.voice.sample_rate}
        joined = {arm: _joined(found, texts, rates[arm]) for arm, found in waves.items()}
        own = self.model.say(text)
        voice = at_16k(self._speak(self.model.parts.t2c.said(text)), self.voice.sample_rate)
        return {"voice": voice} | joined | {"t2c": at_16k(own.audio, own.sample_rate)}

    def utterances(self, text: str) -> list[str]:
        """Return what the model's vocoder says at a time of a text."""
        parts, found = self.model.parts, [""]
        pieces = token_pieces(parts.reader.tokenizer, encode(parts.reader.tokenizer, parts.t2c.said(text)))
        for first, end in cut_text(pieces, parts.segmenter) if parts.trims else [(0, len(pieces))]:
            found[-1] += text_of_pieces(pieces[first:end])
            if not parts.t2c.config.past_words or ends_sentence(found[-1]):
                found.append("")
        return list(filter(None, found))

    def _speak(self, text: str) -> np.ndarray:
        return self.voice.speak(text.strip(), self.voice.styles[0], 1.0, 0)


def _joined(waves: Sequence[np.ndarray], texts: Sequence[str], rate: int) -> np.ndarray:
    """Return segments as they are heard one after the other, at 16 kHz."""
    return at_16k(np.concatenate([trimmed(wave, rate, text) for wave, text in zip(waves, texts, strict=True)]), rate)


def read_texts(path: Path, field: str) -> list[Item]:
    """Return the texts of a JSONL file as what is asked for; InputError names a row without them, or an id that is there twice."""
    found = [Item(row["id"], row[field], ()) for row in read_fields(path, field)]
    check_questions(found, path, need_audio=False)
    return found


def run_ladder(
    texts: Sequence[Item],
    ladder: Ladder,
    beside: ReferenceVoice,
    names: dict[str, str],
    out: Path,
    limit: int | None = None,
) -> list[Table]:
    """Return the word errors of every arm over the first texts, writing ladder.jsonl; `names` are those of model and texts."""
    settings = {
        "task": "ladder",
        "texts": "as they are read aloud",
        **names,
        "voice": beside.kind,
        "judge": beside.judge.name,
    }
    settings |= {"wer_normaliser": NORMALISER, "questions_mark": fingerprint(texts)}

    def answer(_: str, some: Sequence[Item]) -> Iterator[dict[str, Any]]:
        waves = [attempt(partial(ladder.say, one.question)) for one in some]
        for arm in ARMS:
            sounds = [found if isinstance(found, Failure) else found[arm] for found in waves]
            heard = beside.judge.transcribe(sounds_of(sounds))
            for one, sound, words in zip(some, sounds, heard, strict=True):
                found = {"transcript": words} | errors_between(one.question, words) | {"error": ""}
                if isinstance(sound, Failure):  # it has no words in any arm
                    found = {"words": 0, "word_edits": 0, "error": sound.reason}
                yield {"arm": arm, "id": one.id, "text": one.question} | found

    last = list(ARMS)[-1]  # whoever has it has all of them
    return ladder_tables(*Results(out / "ladder.jsonl", settings).fill({last: take(texts, limit)}, BATCH, answer))


def ladder_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return the word error of every arm, and what it adds to that of the arm before."""
    said, before, rows = by_arm([item for item in items if not item["error"]]), [], []
    for arm, step in ARMS.items():
        own = said.get(arm, [])
        added = decimals(rates_between(shared(own, before)), signed=True)
        rows.append((arm, step, str(len(own)), pooled_rate(own, "word_edits", "words"), added))
        before = own
    failed = len({item["id"] for item in items if item["error"]})
    note = f"Judge {settings['judge']}; {settings['wer_normaliser']}; voice {settings['voice']}. "
    note += f"Paired, 95 % bootstrap. Texts that could not be said and are left out: {failed}."
    return [Table("Words lost on the way", ("arm", "step", "n", "WER %", "added, points"), tuple(rows), note)]
