"""Judges: speech recognisers that write down what an answer's audio says, so that it can be scored as text.

A judge is a folder in CTranslate2's layout (as faster-whisper loads it), a transformers ASR folder, or a name that leads to one.
It must not be the model's own encoder: that would forgive the sounds only that encoder understands. Decoding is greedy without
timestamps or fallback temperatures, so a transcript depends on the audio alone; its loops are CTranslate2's and transformers' own.

The window. Whisper was trained on 30 s windows and its cost does not depend on how much of them is speech. A judge with
`window=30` does what faster-whisper does; a shorter window, which faster-whisper cannot have, pads an answer with silence to that
many seconds (and grows by 5 s for longer ones): a fifth of the cost, few other words. Its length is part of the judge's name.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from echox.audio import SAMPLE_RATE
from echox.data.batching import groups
from echox.errors import ConfigError, InputError, ModelError, require
from echox.features.cuts import cut_at_pauses
from echox.files import sha256_of
from echox.hub import fetch_snapshot
from echox.prepare.recogniser import Whisper

FULL_WINDOW = 30  # seconds, Whisper's training window
WINDOW = 15  # seconds, the default
WINDOW_STEP = 5  # seconds
WINDOW_MARGIN = 1  # seconds of silence kept after the speech
MULTILINGUAL = 51_865  # tokens of the Whisper models that know more than English
BATCH = 8
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
SIZES = {(384, 4): "tiny", (512, 6): "base", (768, 12): "small", (1024, 24): "medium", (1280, 32): "large"}
"""Whisper's encoders by width and layers; the English-only ones have the same."""
_MARKS = re.compile(r"<\|[^|]*\|>")  # Whisper's own, where a folder's tokenizer does not know them as special
_NAMED = re.compile(r"whisper.*?(tiny|base|small|medium|large)", re.IGNORECASE)


class Judge(ABC):
    """A recogniser, whose `name` is printed in tables; a kind of it says how a few waves are decoded."""

    name: str

    def transcribe(self, waves: list[np.ndarray]) -> list[str]:
        """Return the words of each wave (float32 at 16 kHz); an empty or silent wave gives an empty string.

        Waves are decoded in batches of pieces of like length, of at most 30 s each, cut at pauses.
        """
        split = [cut_at_pauses(np.asarray(wave, np.float32), FULL_WINDOW * SAMPLE_RATE) for wave in waves]
        pieces = [
            (row, place, one) for row, some in enumerate(split) for place, one in enumerate(some) if _audible(one)
        ]
        pieces.sort(key=lambda piece: len(piece[2]))
        words: dict[tuple[int, int], str] = {}
        for batch in groups(pieces, BATCH):
            texts = self._decode([piece for _, _, piece in batch])
            words |= {(row, place): text.strip() for (row, place, _), text in zip(batch, texts, strict=True)}
        return [" ".join(words[key] for key in sorted(words) if key[0] == row).strip() for row in range(len(waves))]

    @abstractmethod
    def _decode(self, waves: list[np.ndarray]) -> list[str]:
        """Return the words of a few waves, of which none is empty or silent."""


def find_judge(name: str) -> Path:
    """Return the folder of a judge: `name`, or one of that name in $ECHOX_WEIGHTS, or a download; InputError or ModelError."""
    weights = os.environ.get("ECHOX_WEIGHTS")
    for place in (Path(name), *([Path(weights) / name] if weights else [])):
        if place.is_dir():
            return _recogniser_folder(place)
        if place.exists():
            raise InputError(f"the judge {place} is a file: give the folder that holds the recogniser.")
    if os.sep in name and name.count("/") != 1:
        raise InputError(f"the judge folder {name} is missing: correct the path.")
    repository = name if "/" in name else f"Systran/faster-{name}"
    try:
        return _recogniser_folder(fetch_snapshot(repository, patterns=["*.json", "model.bin", "*.safetensors"]))
    except ModelError as error:
        raise ModelError(f"the judge {name!r} is no folder, nor one in $ECHOX_WEIGHTS, and {error}") from error


def load_judge(
    name: str, device: str = "cpu", window: int = WINDOW, language: str = "en", beam: int = 1, translates: bool = False
) -> Judge:
    """Return the judge called `name` (see `find_judge`), with `window` seconds, for one `language`.

    It hears on the CPU unless `device` is cuda. One that `translates` writes English whatever is said: Whisper alone in
    CTranslate2's layout.

    Raises ConfigError for a window outside 1 to 30, a device that is not there, or a `beam` or language that the folder's kind
    cannot have, MissingDependency without faster-whisper for CTranslate2's folders.
    """
    from echox.models.device import pick_device

    if not 1 <= window <= FULL_WINDOW:
        raise ConfigError(f"the judge's window must be 1 to {FULL_WINDOW} seconds, not {window}.")
    pick_device(device)  # or it is not there
    folder, where = find_judge(name), "cuda" if device == "cuda" else "cpu"
    if (folder / "model.bin").is_file():
        return CTranslate2Judge(folder, where, window, language, beam, translates)
    if translates:
        raise ConfigError(f"{folder} does not translate: give a multilingual Whisper in CTranslate2's layout.")
    return PipelineJudge(folder, where, language, beam)


def choose_judges(
    judge: str, recogniser: str, spoken: bool, cascade: bool, window: int, device: str
) -> tuple[Judge | None, Judge | None]:
    """Return the judge and the cascade's recogniser (the judge when none is named), each only if needed.

    Both folders are checked before either is loaded. Raises ConfigError when a spoken arm, as the cascade is, has no judge.
    """
    if not spoken:
        return None, None
    if not judge:
        raise ConfigError("the arms s2s, teacher and cascade are heard by a judge: give --judge, such as whisper-base.")
    require("jiwer", "eval")
    names = [judge, recogniser] if cascade and recogniser not in ("", judge) else [judge]
    for name in names:
        find_judge(name)
    found = [load_judge(name, device, window) for name in names]
    return found[0], found[-1] if cascade else None


class CTranslate2Judge(Judge):
    """A Whisper model in CTranslate2's layout."""

    def __init__(self, folder: Path, device: str, window: int, language: str, beam: int, translates: bool) -> None:
        require("faster_whisper", "eval")  # here, so that it is this extra which is named
        self._whisper, self._window = Whisper(folder, device, language, beam, translates), window
        how = f", {window} s window" + _language(language, translates)
        self.name = _printed(folder / "model.bin", f"ctranslate2 {self._whisper.kind}", beam, how)

    def _decode(self, waves: list[np.ndarray]) -> list[str]:
        samples = window_samples(max(len(wave) for wave in waves), self._window)
        return self._whisper.read([np.pad(wave, (0, samples - len(wave))) for wave in waves])


class PipelineJudge(Judge):
    """Any ASR folder that transformers loads, through its pipeline, in float32."""

    def __init__(self, folder: Path, device: str, language: str, beam: int = 1) -> None:
        from transformers import WhisperTokenizer, pipeline
        from transformers.models.auto.modeling_auto import MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES

        config, words = _config(folder), None
        self._options: dict[str, Any] = {}
        if config.get("model_type") in MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES:
            self._options = {"generate_kwargs": {"num_beams": beam, "do_sample": False}}
        elif beam > 1:
            raise ConfigError(f"{folder} decodes greedily: give another judge for a beam of {beam}.")
        if config.get("model_type") == "whisper":
            words = WhisperTokenizer.from_pretrained(folder)  # also where the folder does not name its kind
            if config.get("vocab_size", 0) >= MULTILINGUAL:
                self._options["generate_kwargs"] |= {"language": language, "task": "transcribe"}
        self._pipeline: Any = pipeline("automatic-speech-recognition", str(folder), tokenizer=words, device=device)
        self.name = _printed(_weights(folder), "transformers float32", beam, _language(language))

    def _decode(self, waves: list[np.ndarray]) -> list[str]:
        inputs = [{"raw": wave, "sampling_rate": SAMPLE_RATE} for wave in waves]
        return [_MARKS.sub("", str(found["text"])) for found in self._pipeline(inputs, **self._options)]


def window_samples(samples: int, window: int) -> int:
    """Return how many samples an utterance is padded to: `window` seconds, or more in steps of 5 s up to 30 s."""
    seconds = window
    while seconds < FULL_WINDOW and samples > (seconds - WINDOW_MARGIN) * SAMPLE_RATE:
        seconds += WINDOW_STEP
    return min(seconds, FULL_WINDOW) * SAMPLE_RATE


def _audible(wave: np.ndarray) -> bool:
    return len(wave) >= SAMPLE_RATE // 20 and float(np.abs(wave).max()) > 1e-4


def whisper_size(folder: Path) -> str:
    """Return which of Whisper's encoders a folder holds (`tiny` to `large`), by its config's sizes, else by a name; else ""."""
    configs = [_config(place) for place in (folder / "encoder", folder)]
    for config in configs:
        sizes = [name for size, name in SIZES.items() if size == (config.get("d_model"), config.get("encoder_layers"))]
        if sizes:
            return sizes[0]
    names = [value for config in configs for value in config.values() if isinstance(value, str)]
    found = (_NAMED.search(name) for name in (*names, *reversed(folder.resolve().parts[-4:])))
    return next((match.group(1).lower() for match in found if match), "")


def warn_if_own_ear(model: Path | None, judge: Path | None, tell: Callable[[str], None]) -> None:
    """Tell when the judge folder has the encoder that the model folder listens with; None means unknown or not used."""
    own = "" if model is None else whisper_size(model)
    if judge is not None and own and own == whisper_size(judge):
        advice = "choose another judge for numbers you publish"
        tell(f"the judge {judge.name} listens with whisper-{own}'s encoder, as the model itself does: {advice}")


def _recogniser_folder(folder: Path) -> Path:
    """Return the folder of the weights; InputError where there are none, or of what transformers knows as no recogniser."""
    for place in (folder, folder / "ct2"):
        if (place / "model.bin").is_file() and (place / "tokenizer.json").is_file():
            return place
    if not (folder / "config.json").is_file() or not _weights(folder).is_file():
        needs = "model.bin and tokenizer.json (CTranslate2) or config.json and model.safetensors (transformers)"
        raise InputError(f"{folder} is not a judge: it needs {needs}.")
    from transformers.models.auto import modeling_auto as auto

    kind, named = str(_config(folder).get("model_type", "")), list(map(str, _config(folder).get("architectures") or []))
    writing: dict[Any, str] = {**auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES}
    made_for = named or [writing.get(kind, "")]
    if not {*writing.values(), *auto.MODEL_FOR_CTC_MAPPING_NAMES.values()} & set(made_for):
        what = ", ".join(named) or kind or "an unnamed model"
        raise InputError(f"{folder} holds {what}, which is no speech recogniser: give a Whisper or CTC folder.")
    return folder


def _config(folder: Path) -> dict[str, Any]:
    """Return a folder's config.json, empty when there is none; ModelError when it is broken."""
    from echox.models.io import read_config

    return read_config(folder) if (folder / "config.json").is_file() else {}


def _weights(folder: Path) -> Path:
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])


def _language(language: str, translates: bool = False) -> str:
    """Return what a judge's name says of its language: nothing where it writes English as English."""
    return f", {language} to en" if translates else f", {language}" if language != "en" else ""


def _printed(weights: Path, engine: str, beam: int, how: str) -> str:
    """Return a judge's name: its folder, how it decodes, and a mark that changes when its weights do."""
    folder = weights.parent.resolve()
    name = folder.parent.name if folder.name == "ct2" else folder.name
    if "snapshots" in folder.parts:
        name = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    search = "greedy" if beam == 1 else f"beam {beam}"
    return f"{name} ({engine}, {search}{how}, sha256 {sha256_of(weights)[:8]})"
