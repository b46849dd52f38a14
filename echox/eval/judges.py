"""Judges: speech recognisers that write down what an answer's audio says, so that it can be scored as text.

A judge is a folder in CTranslate2's layout (as faster-whisper loads it) or a transformers ASR folder, or a name that
leads to one. It must not be the model's own encoder: that would forgive the sounds only that encoder understands.
Decoding is greedy without timestamps or fallback temperatures, so a transcript depends on the audio alone.

The window. Whisper was trained on 30 s windows and its cost does not depend on how much of them is speech. A judge
with `window=30` does what faster-whisper does; a shorter window pads an answer with silence to that many seconds (and
grows by 5 s for longer ones), which costs a fifth and changes few words. Its length is part of the judge's name.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from echox.errors import ConfigError, InputError, ModelError
from echox.eval.packages import need

SAMPLE_RATE = 16_000
FULL_WINDOW = 30  # seconds, Whisper's training window
WINDOW = 15  # seconds, the default
WINDOW_STEP = 5  # seconds
WINDOW_MARGIN = 1  # seconds of silence kept after the speech
MAX_TOKENS = 224  # Whisper's own limit: half its decoder positions
BATCH = 8
RECOGNISERS = frozenset({"whisper", "moonshine", "speech_to_text", "speech-encoder-decoder", "granite_speech"})
"""Kinds of transformers models that write speech down without a CTC head."""
SPLIT_SEARCH = 5 * SAMPLE_RATE  # samples before a window's end in which the quietest place is cut


class Judge(Protocol):
    """A recogniser: `name` is printed in tables, `transcribe` maps waves at 16 kHz to their words."""

    name: str

    def transcribe(self, waves: list[np.ndarray]) -> list[str]: ...


def find_judge(name: str) -> Path:
    """Return the folder of a judge: `name` itself, or a folder of that name in $ECHOX_WEIGHTS, or a download.

    Raises InputError for a folder that holds no recogniser, ModelError when a name can be found nowhere.
    """
    places = [Path(name)]
    if os.environ.get("ECHOX_WEIGHTS"):
        places.append(Path(os.environ["ECHOX_WEIGHTS"]) / name)
    for place in places:
        if place.is_dir():
            return _recogniser_folder(place)
        if place.exists():
            raise InputError(f"the judge {place} is a file: give the folder that holds the recogniser.")
    if os.sep in name and name.count("/") != 1:
        raise InputError(f"the judge folder {name} is missing: correct the path.")
    return _download(name)


def load_judge(name: str, device: str = "cpu", window: int = WINDOW, language: str = "en", beam: int = 1) -> Judge:
    """Return the judge called `name` (see `find_judge`), on `device`, with `window` seconds, for one `language`.

    Raises ConfigError for a window outside 1 to 30 or a `beam` that the folder's kind cannot have, MissingDependency
    without ctranslate2 for its folders.
    """
    if not 1 <= window <= FULL_WINDOW:
        raise ConfigError(f"the judge's window must be 1 to {FULL_WINDOW} seconds, not {window}.")
    folder = find_judge(name)
    if (folder / "model.bin").is_file():
        return CTranslate2Judge(folder, device, window, language, beam)
    if beam != 1:
        raise ConfigError(f"{folder} decodes greedily: give a CTranslate2 folder for a beam of {beam}.")
    return TransformersJudge(folder, device, language)


def window_samples(samples: int, window: int) -> int:
    """Return how many samples an utterance is padded to: `window` seconds, or more in steps of 5 s up to 30 s."""
    seconds = window
    while seconds < FULL_WINDOW and samples > (seconds - WINDOW_MARGIN) * SAMPLE_RATE:
        seconds += WINDOW_STEP
    return min(seconds, FULL_WINDOW) * SAMPLE_RATE


def split_long(wave: np.ndarray) -> list[np.ndarray]:
    """Return a wave as pieces of at most 30 s, each cut at the quietest 20 ms of its last 5 s."""
    limit, hop = FULL_WINDOW * SAMPLE_RATE, SAMPLE_RATE // 50
    pieces = []
    while len(wave) > limit:
        tail = wave[limit - SPLIT_SEARCH : limit]
        energy = (tail[: len(tail) // hop * hop].reshape(-1, hop) ** 2).sum(axis=1)
        cut = limit - SPLIT_SEARCH + int(energy.argmin()) * hop
        pieces.append(wave[:cut])
        wave = wave[cut:]
    return [*pieces, wave]


class CTranslate2Judge:
    """A Whisper model in CTranslate2's layout, int8 on the CPU; `transcribe` takes any number of waves."""

    def __init__(self, folder: Path, device: str, window: int, language: str, beam: int = 1) -> None:
        ctranslate2 = need("ctranslate2")
        from tokenizers import Tokenizer

        kind = "int8" if device == "cpu" else "float16"
        try:
            self._model = ctranslate2.models.Whisper(str(folder), device=device, compute_type=kind)
        except RuntimeError as error:
            raise ModelError(f"{folder} cannot be loaded as a Whisper model ({error}); download it again.") from error
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._prompt = _whisper_prompt(self._tokenizer, self._model.is_multilingual, language, folder)
        self._storage = ctranslate2.StorageView
        self._window, self._beam = window, beam
        mark = _mark(folder / "model.bin")
        search = "greedy" if beam == 1 else f"beam {beam}"
        self.name = f"{_folder_name(folder)} (ctranslate2 {kind}, {search}, {window} s window, {mark})"

    def transcribe(self, waves: list[np.ndarray]) -> list[str]:
        """Return the words of each wave (float32 at 16 kHz); an empty or silent wave gives an empty string."""
        split = [
            (index, part, piece) for index, wave in enumerate(waves) for part, piece in enumerate(split_long(wave))
        ]
        pieces = sorted((item for item in split if _audible(item[2])), key=lambda item: len(item[2]))
        said: dict[tuple[int, int], str] = {}
        for start in range(0, len(pieces), BATCH):
            batch = pieces[start : start + BATCH]
            for (index, part, _), text in zip(batch, self._decode([item[2] for item in batch]), strict=True):
                said[index, part] = text
        return [" ".join(said[key] for key in sorted(said) if key[0] == index).strip() for index in range(len(waves))]

    def _decode(self, waves: list[np.ndarray]) -> list[str]:
        from echox.features.logmel import log_mel

        samples = window_samples(max(len(wave) for wave in waves), self._window)
        padded = [np.pad(wave.astype(np.float32), (0, samples - len(wave))) for wave in waves]
        mel_BFT, _ = log_mel(padded, self._model.n_mels)
        features = self._storage.from_array(np.ascontiguousarray(mel_BFT.numpy()))
        prompts = [self._prompt] * len(waves)
        found = self._model.generate(features, prompts, beam_size=self._beam, max_length=MAX_TOKENS * 2)
        return [self._tokenizer.decode(result.sequences_ids[0]).strip() for result in found]


class TransformersJudge:
    """Any ASR folder that transformers loads: Whisper greedily in 30 s windows, CTC models through their pipeline."""

    def __init__(self, folder: Path, device: str, language: str) -> None:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder)
        self._whisper = config.model_type == "whisper"
        self.name = f"{_folder_name(folder)} (transformers float32, greedy, {_mark(_weights(folder))})"
        if self._whisper:
            self._load_whisper(folder, device, language, config)
        else:
            from transformers import pipeline

            self._pipeline: Any = pipeline("automatic-speech-recognition", model=str(folder), device=device)

    def _load_whisper(self, folder: Path, device: str, language: str, config: Any) -> None:
        from tokenizers import Tokenizer
        from transformers import WhisperForConditionalGeneration

        self._model: Any = WhisperForConditionalGeneration.from_pretrained(folder)
        self._model.eval().to(device)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        multilingual = self._tokenizer.token_to_id("<|transcribe|>") is not None and config.vocab_size >= 51865
        self._prompt = _whisper_prompt(self._tokenizer, multilingual, language, folder)
        self._mels = config.num_mel_bins

    def transcribe(self, waves: list[np.ndarray]) -> list[str]:
        """Return the words of each wave (float32 at 16 kHz); an empty or silent wave gives an empty string."""
        return [" ".join(self._one(piece) for piece in split_long(wave) if _audible(piece)).strip() for wave in waves]

    def _one(self, wave: np.ndarray) -> str:
        if not self._whisper:
            return str(self._pipeline({"raw": wave.astype(np.float32), "sampling_rate": SAMPLE_RATE})["text"]).strip()
        import torch

        from echox.features.logmel import log_mel

        padded = np.pad(wave.astype(np.float32), (0, FULL_WINDOW * SAMPLE_RATE - len(wave)))
        mel_BFT, _ = log_mel([padded], self._mels)
        ids = list(self._prompt)
        end = self._tokenizer.token_to_id("<|endoftext|>")
        with torch.inference_mode():
            hidden = self._model.model.encoder(mel_BFT.to(self._model.device)).last_hidden_state
            step, past = ids, None
            for _ in range(MAX_TOKENS):
                tokens = torch.tensor([step], device=hidden.device)
                out = self._model(
                    encoder_outputs=(hidden,), decoder_input_ids=tokens, past_key_values=past, use_cache=True
                )
                logits, past = out.logits[0, -1], out.past_key_values
                logits[end + 1 :] = -torch.inf  # no special tokens: they stand above <|endoftext|>
                step = [int(logits.argmax())]
                ids = ids + step
                if ids[-1] == end:
                    break
        return self._tokenizer.decode(ids[len(self._prompt) :]).strip()


def _audible(wave: np.ndarray) -> bool:
    return len(wave) >= SAMPLE_RATE // 20 and float(np.abs(wave).max()) > 1e-4


def _recogniser_folder(folder: Path) -> Path:
    for place in (folder, folder / "ct2"):
        if (place / "model.bin").is_file() and (place / "tokenizer.json").is_file():
            return place
    if (folder / "config.json").is_file() and _weights(folder).is_file():
        _check_hears(folder)
        return folder
    raise InputError(
        f"{folder} is not a judge: it needs model.bin and tokenizer.json (CTranslate2) or config.json and "
        "model.safetensors (transformers)."
    )


def _check_hears(folder: Path) -> None:
    """Raise InputError when a transformers folder holds something else than a speech recogniser."""
    config = read_config(folder)
    made_for = [str(name) for name in config.get("architectures") or []]
    kind = str(config.get("model_type", ""))
    whole = not any(name.endswith(("Encoder", "Model")) for name in made_for)
    if any(name.endswith(("ForCTC", "ForSpeechSeq2Seq", "ForSpeechToText")) for name in made_for) or (
        kind in RECOGNISERS and whole
    ):
        return
    raise InputError(
        f"{folder} holds {', '.join(made_for) or kind or 'an unnamed model'}, which is no speech recogniser: give a Whisper "
        "or CTC folder as judge."
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return a folder's config.json, empty when there is none; raise InputError when it is not a JSON object."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON: fetch the folder again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object: fetch the folder again.")
    return found


def _weights(folder: Path) -> Path:
    names = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _download(name: str) -> Path:
    """Return the folder of a recogniser fetched by name: a repository, or a size that faster-whisper knows."""
    hub = need("huggingface_hub")
    repository = name if "/" in name else f"Systran/faster-{name}"
    wanted = ["config.json", "*.json", "model.bin", "*.safetensors"]
    try:
        return _recogniser_folder(Path(hub.snapshot_download(repository, allow_patterns=wanted)))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        message = f"the judge {name!r} is neither a folder nor can {repository} be downloaded: give a folder"
        raise ModelError(f"{message}, or put one named {name} into $ECHOX_WEIGHTS.") from error


def _whisper_prompt(tokenizer: Any, multilingual: bool, language: str, folder: Path) -> list[int]:
    names = ["<|startoftranscript|>"]
    if multilingual:
        names += [f"<|{language}|>", "<|transcribe|>"]
    ids = [tokenizer.token_to_id(name) for name in (*names, "<|notimestamps|>")]
    if None in ids:
        missing = (*names, "<|notimestamps|>")[ids.index(None)]
        raise ModelError(f"the tokenizer in {folder} has no {missing}: the judge does not know this language.")
    return ids


def _folder_name(folder: Path) -> str:
    resolved = folder.resolve()
    if "snapshots" in resolved.parts:
        return resolved.parent.parent.name.removeprefix("models--").replace("--", "/")
    return resolved.parent.name if resolved.name == "ct2" else resolved.name


def _mark(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"sha256 {digest.hexdigest()[:8]}"
