"""TTS voices whose decoder is known: they speak a text and return the inputs of their decoder; they know no files and no units.

Legend: F frames of the decoder, I decoder inputs, L latents, S samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from echox.errors import InputError, ModelError, require
from echox.models.spectral import Sound, SpectralConfig, SpectralDecoder, as_inputs

TOY_FRAMES = 8  # a letter
TINY: dict[str, Any] = {"latents": 8, "width": 16, "layers": 1, "kernel": 3}


@dataclass
class Said:
    """One utterance: what the decoder was given, and the samples."""

    latents_FL: np.ndarray
    prosody_F2: np.ndarray  # pitch in Hz (0 or less: unvoiced), energy
    wave_S: np.ndarray  # float32 at the decoder's sample rate, a whole number of hops a frame
    text: str  # what was said, its words apart by single spaces; empty where that is not known
    begins: np.ndarray  # decoder frame at which each of its words begins; none where that is not known


class HibariTeacher:
    """hibari-tts: one ONNX graph, run with the input of its decoder and the lengths of phonemes as two more outputs."""

    INPUTS, LENGTHS = "/Concat_43_output_0", "/Cast_32_output_0"

    def __init__(self) -> None:
        runtime = require("onnxruntime", extra="prepare")
        hibari = require("hibari", extra="prepare")
        self._tts, self._synth = hibari.Hibari(threads=1), hibari.dsp.synth
        path = Path(self._tts.model_path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        model = with_outputs(path.read_bytes(), (self.INPUTS, self.LENGTHS))
        self.session = runtime.InferenceSession(model, options)
        self.decoder = hibari_decoder(read_weights(path))

    def run(self, ids: list[int]) -> list[np.ndarray]:
        """Return a b c d e (each [F, bins]), f0 [F], decoder inputs [F, L + 2] and lengths [P] of phoneme ids, in frames."""
        feeds = {"ids": np.asarray([ids], np.int64), "speed": np.ones(1, np.float32)}
        *found, lengths = self.session.run(None, feeds)
        found, lengths_P = [one[0].T for one in found], lengths.ravel()
        return [*found, lengths_P * (len(found[-1]) // int(lengths_P.sum()))]

    def say(self, text: str, seed: int) -> list[Said]:
        """Return the sentences of `text`; the samples are hibari's own."""
        said, random = [], np.random.default_rng(seed)
        for sentence in self._tts.split_sentences(text):
            parts = self._tts.phonemize(sentence)
            for phonemes in parts:
                ids = self._tts.ids(phonemes)
                if len(ids) < 3:
                    continue
                *spectra, f0_F, inputs_FI, lengths_P = self.run(ids)
                wave_S = self._synth(*(part.T for part in spectra), f0_F, random)
                prosody_F2 = np.stack([f0_F.clip(min=0.0), inputs_FI[:, -1]], axis=1)
                words = sentence.split() if len(parts) == 1 else []
                begins = word_begins(phonemes, self._tts.ids, lengths_P)
                begins = begins if len(begins) == len(words) else begins[:0]  # some words are said as two
                said.append(Said(inputs_FI[:, :-2], prosody_F2, wave_S, " ".join(words), begins))
        return said


def word_begins(phonemes: str, ids_of: Callable[[str], list[int]], lengths_P: np.ndarray) -> np.ndarray:
    """Return the frame at which each word begins, the first at 0, from phonemes whose words are apart by spaces.

    `ids_of` puts one id before a text's own and one behind, and leaves out what it does not know.
    """
    counts = [len(ids_of(word + " ")) - 2 for word in phonemes.split(" ")[:-1]]
    starts_P = np.cumsum(lengths_P) - lengths_P
    return np.asarray([0, *starts_P[1 + np.cumsum(counts, dtype=np.int64)]], np.int64)


def hibari_decoder(weights: dict[str, np.ndarray]) -> SpectralDecoder:
    """Return hibari's decoder from its graph's weights, int8 matrices as float; ModelError when one is missing."""
    names = {"enter": "dec_in", "norm": "dec_norm"}
    parts = {"depthwise": "dw", "norm": "norm", "up": "pw1", "down": "pw2"}
    decoder = SpectralDecoder(SpectralConfig())
    state = {}
    try:
        for key in decoder.state_dict():
            first, *rest = key.split(".")
            if first == "blocks" and rest[1] == "scale":
                state[key] = weights[f"m.dec.{rest[0]}.gamma"]
                continue
            place = f"dec.{rest[0]}/{parts[rest[1]]}" if first == "blocks" else names.get(first) or first
            name = f"m.{place.replace('/', '.')}.{rest[-1]}"
            state[key] = weights[name] if name in weights else _matrix(weights, place)
    except KeyError as error:
        raise ModelError(f"hibari's graph has no tensor {error}: install hibari-tts==0.2.1.") from error
    decoder.load_state_dict({key: torch.tensor(value) for key, value in state.items()})
    return decoder.eval()


def _matrix(weights: dict[str, np.ndarray], place: str) -> np.ndarray:
    """Return a linear layer's weights [out, in], which the graph holds transposed and quantised."""
    names = (f"/{place}/Transpose_output_0_{kind}" for kind in ("quantized", "scale", "zero_point"))
    quantised, scale, zero = (weights[name] for name in names)
    return ((quantised.astype(np.float32) - zero.astype(np.float32)) * scale).T.copy()


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Return every initializer by its name; InputError when the file is no ONNX model, MissingDependency without `onnx`."""
    to_array = require("onnx.numpy_helper", extra="prepare").to_array
    try:
        graph = _graph_of(path.read_bytes()).graph
        if not graph.initializer:
            raise ValueError("it holds no weights")
        return {tensor.name: np.array(to_array(tensor)) for tensor in graph.initializer}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an ONNX model ({error!r}): install its package again.") from error


def with_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """Return `model` with tensors of these names as more outputs of its graph."""
    found = _graph_of(model)
    for name in names:
        found.graph.output.add(name=name)
    return found.SerializeToString()


def _graph_of(content: bytes) -> Any:
    """Return a parsed ONNX model; ValueError when it is not one."""
    onnx, message = require("onnx", extra="prepare"), require("google.protobuf.message", extra="prepare")
    try:
        return onnx.ModelProto.FromString(content)
    except message.DecodeError as error:
        raise ValueError(error) from error


class ToyTeacher:
    """Every letter is a random latent for a tenth of a second, read by a random tiny decoder."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.decoder = SpectralDecoder(SpectralConfig(**TINY)).eval()
        self._table = np.random.default_rng(seed).standard_normal((256, TINY["latents"])).astype(np.float32)

    @torch.inference_mode()
    def say(self, text: str, seed: int) -> list[Said]:
        """Return `text` as one sentence."""
        words = text.lower().split()
        text = " ".join(words)
        begins = TOY_FRAMES * np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
        letters = np.repeat(np.frombuffer(text.encode("latin-1", errors="replace"), np.uint8), TOY_FRAMES)
        f0_F = np.where(letters % 5, 150.0 + letters, 0.0).astype(np.float32)
        energy_F = (letters % 7).astype(np.float32) / 7
        latents_FL = self._table[letters]
        inputs = as_inputs(*(torch.from_numpy(part)[None] for part in (latents_FL, f0_F, energy_F)))
        wave_S = Sound(self.decoder.config).push(self.decoder(inputs)[0], torch.from_numpy(f0_F), last=True)
        return [Said(latents_FL, np.stack([f0_F, energy_F], axis=1), 0.01 * wave_S.numpy(), text, begins)]
