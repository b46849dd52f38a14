"""The world that hostile input is tried in: a home with things worth keeping, a tiny untrained model, tables, sounds, recipes."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import joblib
import numpy as np
import soundfile
import torch

from echox.generate.model_config import MODEL_TYPE
from echox.models.adapter import AdapterConfig
from echox.models.echo import EchoDecoder
from echox.models.encoder import SpeechEncoder
from echox.models.io import save_part
from echox.models.llm import load_llm
from echox.models.lora import LoraSettings
from echox.models.s2t import S2TConfig, SpeechToText
from echox.models.t2c import TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.train.toy import sound_of, write_encoder, write_llm
from echox.units.extractor import UnitsMeta, save_centroids
from echox.units.lexicon import Bigrams, Lexicon
from echox.units.tokenizer import UnitTokenizer
from tests.released.test_fairseq import write_vocoder
from tests.released.tiny import write_checkpoint
from tests.tiny_translator import write_translator

UNITS, WIDTH = 16, 32
KEEP = ("home", "outside", "model", "sounds", "translator", "encoder", "others")  # what no case may change
TABLE = "id\tquestion\tanswers\taudio\nq1\tWhat is it?\tParis | paris\tquestion.wav\nq2\tWho?\tRed\tquestion.wav\n"


def write_world(root: Path) -> Path:
    """Write home/, outside/, model/, sounds/, translator/, encoder/, others/ under `root` and return it."""
    for name in ("home", "outside"):
        (root / name / "photos").mkdir(parents=True)
        (root / name / "thesis.txt").write_text("years of work, without a last line break")
        (root / name / "photos" / "wedding.jpg").write_bytes(os.urandom(1000))
    (root / "home" / ".echox").write_text('{"made_by": "echox", "files": []}')
    write_model(root / "model")
    write_sounds(root / "sounds")
    write_translator(root / "translator")
    write_encoder(root / "encoder")
    write_others(root / "others")
    return root


def write_others(folder: Path) -> None:
    """Write what `echox convert` reads: a released checkpoint with its encoder, a vocoder of fairseq, pickles."""
    write_checkpoint(folder / "EchoX-tiny")
    write_vocoder(folder, upsample_initial_channel=32)
    torch.save({"model": {"mask_emb": torch.zeros(4)}, "args": None}, folder / "hubert.pt")
    joblib.dump(np.zeros((4, 8), np.float32), folder / "km_L2.bin")


def write_model(folder: Path) -> None:
    """Write a whole model folder of random weights."""
    write_llm(folder / "llm", WIDTH)
    write_encoder(folder / "raw")
    SpeechEncoder.from_pretrained(folder / "raw").save(folder / "encoder")
    for path in (folder / "raw").iterdir():
        path.unlink()
    (folder / "raw").rmdir()
    torch.manual_seed(0)
    llm = load_llm(folder / "llm")
    words = tuple((unit,) for unit in range(UNITS))
    units = UnitTokenizer(Lexicon(UNITS, words, np.full(UNITS, -np.log(UNITS)), Bigrams.empty(UNITS)), "unigram")
    units.save(folder / "units")
    meta = UnitsMeta("toy", "0", 1, "short", 16_000, 320, UNITS)
    save_centroids(folder / "units", np.random.default_rng(0).normal(size=(UNITS, 16)).astype(np.float32), meta)
    adapter = asdict(AdapterConfig(encoder_width=16, width=WIDTH, layers=1, heads=4, ffn=32))
    config = S2TConfig(
        adapter=adapter, lora=asdict(LoraSettings(rank=2)), llm={"folder": "llm"}, ctc_classes=20, max_new_tokens=6
    )
    s2t = SpeechToText(config, llm)
    s2t.ctc_tokens += torch.arange(20, 40, dtype=torch.int32)
    s2t.save(folder / "s2t")
    sizes = {"llm_width": WIDTH, "width": 32, "layers": 1, "heads": 4, "kv_heads": 2, "ffn": 64, "spelling_width": 16}
    specials = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "unit_vocab_size": units.vocab_size}
    t2c = TextToCodec(T2CConfig(**sizes, **specials, spelling=True, max_positions=128))
    t2c.save(folder / "t2c")
    EchoDecoder.from_t2c(t2c, denoise_width=64).save(folder / "echo")
    small = {"duration_width": 8, "trunk_width": 16, "trunk_layers": 2, "head_width": 16, "head_layers": 1}
    vocoder = UnitVocoder(VocoderConfig(num_units=UNITS, embedding_dim=16, **small))
    save_part(folder / "vocoder", vocoder)
    head = {"model_type": MODEL_TYPE, "encoder_layer": 2, "llm": {"folder": "llm"}, "about": "random"}
    (folder / "config.json").write_text(json.dumps(head))


def write_sounds(folder: Path) -> None:
    """Write one question in every format that is read."""
    folder.mkdir()
    wave = sound_of("what is the capital")
    for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF"):
        soundfile.write(folder / f"question.{kind.lower()}", wave, 16_000, format=kind)


def state_of(root: Path) -> str:
    """Return a digest of every name, kind and content of what must be kept."""
    found = hashlib.sha256()
    for name in KEEP:
        for path in sorted((root / name).rglob("*")):
            found.update(os.fsencode(path.relative_to(root)) + b"\0" + (path.read_bytes() if path.is_file() else b""))
    return found.hexdigest()


def leftovers(root: Path) -> list[str]:
    """Return what a writer that failed would leave behind."""
    marks = (".part", ".old", ".tmp", ".partial")
    return [str(path) for path in root.rglob(".*") if path.name.endswith(marks) or path.name.startswith(".echox-")]
