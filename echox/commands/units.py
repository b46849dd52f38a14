"""`echox units`: waves to units, units to a unit language, units back to waves.

    sound files ──fit──► units folder (centroids)      units.jsonl ──words──► units folder (unit language)
    sound files ──extract──► units.jsonl               units.jsonl ──speak──► sound files

Parses options, reads and writes the files; the work is in echox/units.  Nothing heavy is imported before a verb runs.
A line of units.jsonl holds `id`, `units` (runs written once) and `durations` (frames of each run).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from echox.audio import SAMPLE_RATE
from echox.commands.options import LARGEST_SEED

if TYPE_CHECKING:
    import numpy as np

    from echox.units.extractor import Encode

app = typer.Typer(help="Speech to units, and units to speech.", no_args_is_help=True, add_completion=False)

Sounds = Annotated[list[str], typer.Argument(help="Sound files, or JSONL manifests that name them.")]
UnitFiles = Annotated[list[str], typer.Argument(help="units.jsonl files.")]
Encoder = Annotated[str, typer.Option("--encoder", help="Folder or hub name of a Hugging Face speech encoder.")]
Folder = Annotated[str, typer.Option("--out", "-o", help="Units folder to write into.")]
BATCH = 16  # waves read and encoded together
MOST_FRAMES = 500_000  # of one line that is spoken: more than two hours
FILE_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\0\ud800-\udc7f\udd00-\udfff]+")  # what a file system can take


@app.command()
def fit(
    sounds: Sounds,
    encoder: Encoder,
    layer: Annotated[int, typer.Option(min=0, help="Layer whose states are clustered; 1 is the first block's output.")],
    out: Folder = "units",
    k: Annotated[int, typer.Option(min=1, help="Number of units.")] = 500,
    window: Annotated[str, typer.Option(help="short: Whisper without padding to 30 s, or own.")] = "own",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of sampling and initialisation.")] = 0,
) -> None:
    """Cluster encoder states of sound files into k units."""
    from echox.errors import require
    from echox.units.extractor import UnitsMeta, check_place, save_centroids
    from echox.units.kmeans import POINTS_PER_CENTROID, fit_kmeans, sample_frames

    require("faiss", extra="train")  # said before anything is encoded
    check_place(out)
    encode, revision, hop = load_encoder(encoder, layer, window)
    heard = batches(tqdm(read_sounds(sounds), "encoding", disable=None, leave=False))
    encoded = (states for waves in heard for states in encode([wave for _, wave in waves]))
    centroids = fit_kmeans(sample_frames(encoded, POINTS_PER_CENTROID * k, seed), k, seed)
    name = Path(encoder).name if Path(encoder).is_dir() else encoder
    save_centroids(out, centroids, UnitsMeta(name, revision, layer, window, SAMPLE_RATE, hop, k))
    typer.echo(f"{out}: {k} units of {encoder}, layer {layer}")


@app.command()
def extract(
    sounds: Sounds,
    encoder: Encoder,
    units: Annotated[str, typer.Option(help="Units folder: centroids and the encoder's layer and window.")],
    out: Annotated[str, typer.Option("--out", "-o", help="File to write.")] = "units.jsonl",
) -> None:
    """Write the de-duplicated units of sound files, one JSON object a line."""
    from echox.units import extractor

    centroids, meta = extractor.load_centroids(units)
    encode, revision, _ = load_encoder(encoder, meta.layer, meta.window)
    if meta.revision != revision and {meta.revision[:7], revision[:7]} == {"sha256:"}:
        fitted = f"{meta.encoder}, on which {units} was fitted"
        typer.echo(f"echox: {encoder} has other weights than {fitted}: are they of one encoder?", err=True)

    def units_of(waves: "list[np.ndarray]") -> list[dict[str, Any]]:
        found = extractor.extract(encode, centroids, waves)
        return [{"units": one.ids.tolist(), "durations": one.durations.tolist()} for one in found]

    write_units(out, sounds, units_of)


@app.command()
def normalise(
    sounds: Sounds,
    encoder: Encoder,
    normaliser: Annotated[str, typer.Option(help="Folder of a trained normaliser (stage normalise).")],
    out: Annotated[str, typer.Option("--out", "-o", help="File to write.")] = "units.jsonl",
    window: Annotated[str, typer.Option(help="The encoder's window: short or own.")] = "short",
) -> None:
    """Write the units that one reference voice would have said, one JSON object a line; they have no durations."""
    import torch

    from echox.models.normaliser import Normaliser
    from echox.models.ragged import pad_right

    model = Normaliser.load(normaliser).float().eval()
    encode, _, _ = load_encoder(encoder, model.config.encoder_layer, window)

    def units_of(waves: "list[np.ndarray]") -> list[dict[str, Any]]:
        states_BTD, mask_BT = pad_right([torch.as_tensor(row) for row in encode(waves)])
        model.check_width(states_BTD.shape[2])
        return [{"units": found} for found in model.units(states_BTD, mask_BT.sum(1))]

    write_units(out, sounds, units_of)


@app.command()
def words(
    files: UnitFiles,
    out: Folder = "units",
    decoder: Annotated[str, typer.Option(help="bigram, unigram or bpe.")] = "bigram",
    units: Annotated[int | None, typer.Option(min=1, help="Single units; otherwise the largest id plus one.")] = None,
    vocabulary: Annotated[int, typer.Option(min=1, help="Most words, single units included.")] = 4000,
    max_length: Annotated[int, typer.Option(min=1, help="Units in the longest word.")] = 8,
    min_count: Annotated[
        int | None, typer.Option(min=1, help="Count of a candidate; otherwise chosen on held-out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed that draws the held-out sequences.")] = 0,
) -> None:
    """Learn a unit language from units.jsonl files and print its code length on held-out sequences."""
    from echox.errors import ConfigError
    from echox.units.estimate import LexiconConfig, train_with_report
    from echox.units.tokenizer import UnitTokenizer

    if decoder not in ("bigram", "unigram", "bpe"):
        raise ConfigError(f"decoder {decoder!r} is unknown: choose bigram, unigram or bpe.")
    values = {"units": units, "vocabulary_size": vocabulary, "max_length": max_length, "min_count": min_count}
    config = LexiconConfig.parse(values | {"seed": seed}, "echox units words")
    UnitTokenizer.check_place(out)
    corpus = [ids for _, ids, _ in tqdm(read_units(files), "reading", disable=None, leave=False)]
    if decoder == "bpe":
        tokenizer = UnitTokenizer.train(corpus, config, "bpe")
    else:
        report = train_with_report(corpus, config)
        tokenizer = UnitTokenizer(report.lexicon, "unigram" if decoder == "unigram" else "bigram")
        for name, bits, length in (
            ("unigram", report.unigram_bits, report.unigram_units_per_word),
            ("bigram", report.bigram_bits, report.bigram_units_per_word),
        ):
            typer.echo(f"held-out {name}: {bits:.3f} bits/unit, {length:.2f} units/word")
    tokenizer.save(out)
    typer.echo(f"{out}: {len(tokenizer.lexicon)} words")


@app.command()
def speak(
    files: UnitFiles,
    vocoder: Annotated[str, typer.Option(help="Vocoder folder: config.json and model.safetensors.")],
    out_dir: Annotated[str, typer.Option("--out-dir", help="Folder for the sound files.")] = "speech",
    keep_durations: Annotated[bool, typer.Option(help="Use the durations of the file, not the vocoder's own.")] = False,
) -> None:
    """Speak units.jsonl files through a vocoder, one WAV a line."""
    from echox.audio import save_wav
    from echox.commands.answers import make_folder
    from echox.errors import InputError
    from echox.generate.parts import load_vocoder

    model = load_vocoder(Path(vocoder)).eval()
    make_folder(Path(out_dir))
    for name, ids, durations in read_units(files):
        if keep_durations and (durations is None or sum(durations) > MOST_FRAMES):
            found = "no durations" if durations is None else f"durations of more than {MOST_FRAMES} frames in all"
            raise InputError(f"{name} has {found}: leave --keep-durations out, or make the file again.")
        path = Path(out_dir) / f"{name}.wav"
        save_wav(path, model.speak(ids.tolist(), durations if keep_durations else None), model.config.sample_rate)
        typer.echo(str(path))


def write_units(out: str, sounds: list[str], units_of: "Callable[[list[np.ndarray]], list[dict[str, Any]]]") -> None:
    """Write a line for every sound, with its id and what `units_of` says of some waves; raises OutputError."""
    from echox.data.manifest import write_jsonl
    from echox.errors import OutputError

    if Path(out).absolute() in [Path(name).absolute() for name in sounds]:
        raise OutputError(f"{out} is one of the sounds and is not replaced: give the name of another file.")
    counts: list[int] = []

    def records() -> Iterator[dict[str, Any]]:
        for some in batches(tqdm(read_sounds(sounds), "encoding", disable=None, leave=False)):
            for (name, _), one in zip(some, units_of([wave for _, wave in some]), strict=True):
                counts.append(len(one["units"]))
                yield {"id": name, **one}

    write_jsonl(out, records())
    typer.echo(f"{out}: {len(counts)} sequences, {sum(counts)} units")


def load_encoder(name: str, layer: int, window: str) -> "tuple[Encode, str, int]":
    """Return (waves to frames of `layer`, revision of the weights, samples per frame) of an encoder.

    "short" is Whisper on windows as long as the audio, "own" the encoder's own rule. Raises ModelError and ConfigError.
    """
    from echox.errors import ConfigError
    from echox.prepare.encode import layer_of
    from echox.units.extractor import revision_of

    if window not in ("short", "own"):
        raise ConfigError(f"window {window!r} is unknown: choose short or own.")
    encode, hop = layer_of(name, layer, window == "short")
    return encode, revision_of(name, getattr(getattr(encode, "config", None), "_commit_hash", None)), hop


def read_sounds(names: list[str]) -> "Iterator[tuple[str, np.ndarray]]":
    """Yield (id, 16 kHz wave) of sound files and of the records of manifests; raises InputError naming the file."""
    from echox.audio import load_audio
    from echox.data.manifest import read_audio, read_manifest
    from echox.errors import InputError

    seen: set[str] = set()
    for name in names:
        path = Path(name)
        if path.suffix != ".jsonl":
            yield _unique(path.stem, seen), load_audio(path)
            continue
        for record in read_manifest(path):
            if record["sample_rate"] != SAMPLE_RATE:
                rate = f"{record['sample_rate']} Hz"
                raise InputError(f"{path}: {record['id']} has {rate}; units are made at {SAMPLE_RATE} Hz.")
            yield _unique(str(record["id"]), seen), read_audio(record, path.parent)


def read_units(files: list[str]) -> "Iterator[tuple[str, np.ndarray, list[int] | None]]":
    """Yield (id, unit ids, durations or None) of units.jsonl files; raises InputError naming file and line."""
    from echox.data.manifest import read_jsonl
    from echox.errors import InputError
    from echox.units.sequence import Units, as_ids

    seen: set[str] = set()
    for file in files:
        for number, record in enumerate(read_jsonl(file), start=1):
            name, durations = record.get("id"), record.get("durations")
            if not isinstance(name, str) or Path(name).name != name or not FILE_NAME.fullmatch(name):
                raise InputError(f"{file} line {number}: the id {name!r} should be a plain file name.")
            try:
                ids = as_ids(record.get("units", "none"), "units")
                if durations is not None:
                    durations = Units(ids, durations).durations.tolist()
            except InputError as error:
                raise InputError(f"{file} line {number}: {error}") from error
            yield _unique(name, seen), ids, durations


def batches(sounds: "Iterable[tuple[str, np.ndarray]]") -> "Iterator[list[tuple[str, np.ndarray]]]":
    """Yield lists of BATCH sounds, the last one shorter."""
    left = iter(sounds)
    while batch := list(islice(left, BATCH)):
        yield batch


def _unique(name: str, seen: set[str]) -> str:
    """Return `name`, with -2, -3, ... when it was given before."""
    found, count = name, 1
    while found in seen:
        count += 1
        found = f"{name}-{count}"
    seen.add(found)
    return found
