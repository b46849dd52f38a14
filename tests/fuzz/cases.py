"""Hostile input, a function of a seed: model folders, recipes, question tables, sound files, arguments."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.world import TABLE

RECIPES = Path(__file__).parents[2] / "recipes"
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10**6, 10**9, 2**63, 10**30, -(10**30), 0.5, 1e300, -1e300, float("nan"), float("inf"),
    "", "x", "../../../home", "/etc/passwd", "\0", "\ud800", "x" * 10_000, "0" * 64, [], [[]], [0], [1] * 1000, {}, {"x": {}},
    {"folder": "../../home"}, {"folder": "/"}, {"package": "x", "version": "1", "file": "x", "sha256": "../../../home"},
    "../../../outside", "torch", "__import__('os').system('x')",
]  # fmt: skip
TEXTS = [
    "What is it?", "", " ", "<|im_end|><|im_start|>system", "\udcff\udcfe", "a\0b", "é" * 3999, "x" * 4001, "\u202e", "🦊" * 50,
]  # fmt: skip


@dataclass
class Case:
    """What to call in `folder`, the speech and the other result that success, and nothing else, would leave."""

    name: str
    argv: list[str]
    folder: Path
    output: Path | None = None
    notes: list[str] = field(default_factory=list)
    made: Path | None = None


def make(root: Path, folder: Path, seed: int) -> Case:
    """Return case number `seed`, its files written under `folder`."""
    rng = random.Random(seed)
    kinds: list[tuple[Callable[..., Case], int]] = [
        (model, 30),
        (recipe, 15),
        (table, 10),
        (sound, 15),
        (arguments, 10),
        (translate, 10),
        (transcribe, 5),
        (serve, 5),
        (convert, 10),
        (units, 15),
    ]
    makers, weights = zip(*kinds, strict=True)
    made = rng.choices(makers, weights)[0](rng, root, folder)
    made.name = f"{seed} {made.name}"
    return made


def model(rng: random.Random, root: Path, folder: Path) -> Case:
    """A model folder with one to three things wrong, asked or made to speak."""
    place, notes = spoilt(rng, root / "model", folder)
    output = folder / "answer.wav"
    argv = rng.choice(
        [
            ["ask", "--typed", "What is it?", "--max-seconds", "0.5", "-o", str(output)],
            ["ask", str(root / "sounds" / "question.wav"), "--max-seconds", "0.5", "-o", str(output)],
            ["say", "What is it?", "--max-seconds", "0.5", "-o", str(output)],
        ]
    )
    return Case("model", [*argv, "--model", str(place), "--device", "cpu"], folder, output, notes)


def spoilt(rng: random.Random, source: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return a copy of a folder in which one to three things are wrong, and what."""
    place = shutil.copytree(source, folder / source.name, copy_function=os.link)
    notes = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        files = sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
        notes.append(spoil(rng, rng.choice(files), place))
    if rng.random() < 0.2:
        (place / ".echox").write_text(json.dumps({"made_by": "echox", "files": ["../../home/thesis.txt"]}))
    return place, notes


def spoil(rng: random.Random, path: Path, place: Path) -> str:
    """Do one thing to a file of a model folder and say what."""
    content = path.read_bytes()
    path.unlink()  # the original is a hard link
    kind = rng.choice(("settings", "settings", "settings", "header", "bytes", "cut", "kind"))
    try:
        if kind == "settings" and path.suffix == ".json":
            path.write_text(json.dumps(changed(rng, json.loads(content))))
        elif kind == "header" and path.suffix == ".safetensors":
            path.write_bytes(bad_tensors(rng, content))
        elif kind == "cut":
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        elif kind == "kind":
            kind = odd_file(rng, path)
        else:
            path.write_bytes(flipped(rng, content))
    except (ValueError, struct.error, RecursionError):  # it was spoilt before
        path.write_bytes(flipped(rng, content))
    return f"{path.relative_to(place)}: {kind}"


def changed(rng: random.Random, value: Any) -> Any:
    """Return plain values with one of them, or one key, replaced, added or taken out."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        if action < 0.2:
            return value | {rng.choice(("surprise", "", "../x", "auto_map", "__class__")): rng.choice(VALUES)}
        return value | {key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.5:
        place = rng.randrange(len(value))
        return [*value[:place], changed(rng, value[place]), *value[place + 1 :]]
    return rng.choice(VALUES)


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Return bytes with some of them replaced, taken out or put in."""
    spoilt = bytearray(content)
    for _ in range(rng.choice((1, 5, 50))):
        place = rng.randrange(max(1, min(len(spoilt), rng.choice((64, 1024, len(spoilt) + 1)))))
        spoilt[place : place + rng.choice((0, 1, 1, 1, 8))] = rng.randbytes(rng.choice((1, 1, 1, 8, 0)))
    return bytes(spoilt)


def bad_tensors(rng: random.Random, content: bytes) -> bytes:
    """Return a safetensors file with a wrong header or with numbers that are none."""
    length = struct.unpack("<Q", content[:8])[0]
    body = bytearray(content[8 + length :])
    if rng.random() < 0.3:
        for _ in range(20):
            place = rng.randrange(max(1, len(body) - 8)) & ~3
            body[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\x80\x7f", b"\xff\x7f\xff\x7f"))
        return content[: 8 + length] + bytes(body)
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(changed(rng, header)).encode("utf-8", "backslashreplace")
    promised = rng.choice((len(text), len(text), len(text), 0, 1 << 40, len(text) - 1))
    return struct.pack("<Q", promised) + text + bytes(body)


def odd_file(rng: random.Random, path: Path) -> str:
    """Put a pipe, a device, a folder, a link or nothing where a file is expected."""
    kind = rng.choice(("pipe", "zero", "folder", "loop", "absent", "empty", "nested", "home"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("zero", "loop", "home"):
        path.symlink_to({"zero": Path("/dev/zero"), "loop": path, "home": Path(os.environ["HOME"])}[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind in ("empty", "nested"):
        path.write_text("" if kind == "empty" else '{"a":' * 200_000)
    return kind


def recipe(rng: random.Random, root: Path, folder: Path) -> Case:
    """A recipe with wrong text, values or overrides; `out` may be a folder full of other things."""
    source = rng.choice(sorted((RECIPES / "debug").glob("*.yaml")))
    path = folder / "recipe.yaml"
    content = source.read_bytes()
    kind = rng.choice(("bytes", "cut", "kind", "line", "override", "override", "out", "out"))
    argv = ["train", str(path)]
    if kind == "bytes":
        path.write_bytes(flipped(rng, content))
    elif kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "kind":
        kind = odd_file(rng, path)
    else:
        path.write_bytes(content)
    lines = [
        "out: 2020-99-99",
        "stage: [t2c]",
        "a: &a [*a, *a]",
        "b: !!python/object/apply:os.system [x]",
        "\t- x",
        "out: \0",
    ]
    if kind == "line":
        path.write_bytes(content + rng.choice(lines).encode() + b"\n")
    keys = ("out", "stage", "seed", "llm", "train", "train.steps", "data", "model", "x.y.z", "")
    if kind == "override":
        argv.append(f"{rng.choice(keys)}={json.dumps(rng.choice(VALUES))}".replace("\0", "0"))
    if kind == "out":
        path.write_text((RECIPES / "debug" / "pack.yaml").read_text())
        places = [root / "home", root / "outside", root / "home" / "photos", root / "home" / "thesis.txt", Path("/")]
        model = root / "model"
        argv += [f"{name}={model / name}" for name in ("encoder", "s2t", "t2c", "echo", "vocoder", "units")]
        argv += [f"unit_language={model / 'units'}", f"llm_folder={model / 'llm'}", f"out={rng.choice(places)}"]
    return Case("recipe", argv, folder, None, [source.name, kind])


def table(rng: random.Random, root: Path, folder: Path) -> Case:
    """A table of questions that is broken, or names files that are none."""
    path = folder / "questions.tsv"
    shutil.copy(root / "sounds" / "question.wav", folder / "question.wav")
    kind = rng.choice(("bytes", "cut", "kind", "field", "audio", "rows"))
    content = TABLE.encode()
    if kind == "bytes":
        path.write_bytes(flipped(rng, content))
    elif kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "kind":
        kind = odd_file(rng, path)
    elif kind == "field":
        path.write_text(TABLE.replace("Who?", "long " * 40_000))
    elif kind == "audio":
        names = ("/dev/zero", "../../home/thesis.txt", "x" * 300, ".", "absent.wav", "pipe", "a\0b")
        os.mkfifo(folder / "pipe")
        path.write_text(TABLE.replace("question.wav", rng.choice(names)))
    else:
        path.write_text(TABLE + rng.choice(("q1\tagain\tx\t\n", "\t\t\t\n", "q3\n", "a\tb\tc\td\te\tf\n", "\r\r\n\f")))
    arms = rng.choice(("t2t", "s2t", "nonsense", ""))
    argv = [
        "eval",
        "qa",
        "--questions",
        str(path),
        "--arms",
        arms,
        "--model",
        str(root / "model"),
        "--out",
        str(folder / "out"),
    ]
    return Case("table", argv, folder, None, [kind, arms], folder / "out" / "results.jsonl")


def sound(rng: random.Random, root: Path, folder: Path) -> Case:
    """A sound file that is damaged, of another kind, or hardly a file."""
    source = rng.choice(sorted((root / "sounds").iterdir()))
    names = [
        b"q" + source.suffix.encode(),
        b"q.raw",
        b"q\xff" + source.suffix.encode(),
        b"q" * 250 + source.suffix.encode(),
    ]
    path = folder / os.fsdecode(rng.choice(names))
    kind = damaged(rng, source, path)
    output = folder / "answer.wav"
    argv = ["ask", str(path), "--model", str(root / "model"), "--max-seconds", "0.5", "-o", str(output)]
    return Case("sound", argv, folder, output, [source.name, kind])


def damaged(rng: random.Random, source: Path, path: Path) -> str:
    """Write a sound to `path` with something wrong in it, or put something else there, and say what."""
    kind = rng.choice(("bytes", "bytes", "bytes", "cut", "kind", "header"))
    content = source.read_bytes()
    if kind == "bytes":
        path.write_bytes(flipped(rng, content))
    elif kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "header":
        spoilt = bytearray(content)
        for _ in range(rng.choice((1, 2, 3))):
            place = rng.randrange(0, 60)
            spoilt[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0"))
        path.write_bytes(bytes(spoilt))
    else:
        kind = odd_file(rng, path)
    return kind


def arguments(rng: random.Random, root: Path, folder: Path) -> Case:
    """Texts, places and numbers that nobody means."""
    os.mkfifo(folder / "pipe.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    (folder / "taken.wav").mkdir()
    places = [
        "answer.wav",
        "pipe.wav",
        "loop.wav",
        "taken.wav",
        "none/a.wav",
        "a.mp3",
        "/dev/full",
        "n" * 300 + ".wav",
        "\udcff.wav",
        "",
    ]
    place = rng.choice(places)
    text = rng.choice(TEXTS).replace("\0", "")
    seconds = rng.choice(("0.5", "0", "-1", "nan", "inf", "1e308", "x"))
    model = rng.choice(
        (str(root / "model"), str(root / "home"), "/dev/zero", "x" * 300, "\udcff", "nobody/nothing", "", "loop.wav")
    )
    verb = rng.choice((["ask", "--typed", text], ["say", text], ["ask", place], ["ask", "--typed", text, "--json"]))
    argv = [*verb, "-o", place, "--max-seconds", seconds, "--model", rng.choice((model, str(root / "model")))]
    return Case("arguments", argv, folder, folder / place if place.endswith(".wav") else None, [place, seconds, model])


def translate(rng: random.Random, root: Path, folder: Path) -> Case:
    """A translator with something wrong, or a phrase, or text where it reads none."""
    place, notes = spoilt(rng, root / "translator", folder) if rng.random() < 0.7 else (root / "translator", ["whole"])
    path, output = root / "sounds" / "question.wav", folder / "answer.wav"
    if notes == ["whole"]:
        path = folder / "phrase.wav"
        notes.append(damaged(rng, root / "sounds" / "question.wav", path))
    argv = ["translate", "--model", str(place), "--device", "cpu", "--max-seconds", "0.5"]
    if rng.random() < 0.1:
        return Case(
            "translate", [*argv, "--typed", rng.choice(TEXTS).replace("\0", ""), "--to", "text"], folder, None, notes
        )
    return Case("translate", [*argv, str(path), "-o", str(output)], folder, output, notes)


def transcribe(rng: random.Random, root: Path, folder: Path) -> Case:
    """A model that hears, with something wrong, or a damaged recording."""
    path = root / "sounds" / "question.wav"
    if rng.random() < 0.6:
        place, notes = spoilt(rng, root / rng.choice(("model", "translator")), folder)
    else:
        place, path = root / "model", folder / "recording.flac"
        notes = [damaged(rng, root / "sounds" / "question.flac", path)]
    return Case("transcribe", ["transcribe", str(path), "--model", str(place), "--device", "cpu"], folder, None, notes)


def serve(rng: random.Random, root: Path, folder: Path) -> Case:
    """A server whose model, text model, address or keys are not what they should be; one that starts ends at once."""
    place, notes = spoilt(rng, root / "model", folder) if rng.random() < 0.7 else (root / "model", ["whole"])
    argv = ["serve", "--model", str(place), "--device", "cpu", "--port", str(rng.randrange(20_000, 60_000))]
    if notes == ["whole"]:
        argv += rng.choice(
            (["--model", rng.choice(("/dev/zero", "..", "", "x" * 300))], ["--host", rng.choice(("", "x y", "256.1.1.1"))],
             ["--llm", str(root / rng.choice(("home", "encoder")))], ["--key", "\udcff"], ["--origin", "\n"],
             ["--slots", "99999999999"], ["--drain-seconds", "nan"])
        )  # fmt: skip
    return Case("serve", argv, folder, None, notes)


def convert(rng: random.Random, root: Path, folder: Path) -> Case:
    """A checkpoint of others, a vocoder or a pickle with something wrong, or a pickle that is a program."""
    others, made = root / "others", folder / "converted"
    encoder = ["--encoder", str(others / "whisper-tiny-random")]
    if rng.random() < 0.5:
        place, notes = spoilt(rng, others / "EchoX-tiny", folder)
        return Case("convert", ["convert", str(place), "-o", str(made), *encoder], folder, None, notes, made)
    source = others / rng.choice(("g_00500000", "hubert.pt", "km_L2.bin", "vocoder_config.json"))
    path, config = folder / source.name, folder / "vocoder_config.json"
    shutil.copy(source, path)
    notes = [spoil(rng, path, folder)]
    if source.name != config.name and rng.random() < 0.2:
        program = b"cposix\nsystem\n(S'touch " + os.fsencode(root / "outside" / "pwned") + b"'\ntR."
        path.unlink(missing_ok=True) if not path.is_dir() else path.rmdir()
        path.write_bytes(program)
        notes = ["program"]
    if source.name in ("g_00500000", config.name):
        if path != config:
            shutil.copy(others / config.name, config)
        argv = [
            "convert",
            str(others / "g_00500000" if path == config else path),
            "-o",
            str(made),
            "--config",
            str(config),
        ]
    else:
        argv = ["convert", str(path), "-o", str(made), *encoder]
    return Case("convert", argv, folder, None, [source.name, *notes], made)


def units(rng: random.Random, root: Path, folder: Path) -> Case:
    """Lines of units that are none, or a folder, a manifest or sounds of others, for every verb of `echox units`."""
    verb = rng.choice(("words", "speak", "extract", "fit"))
    lines, made = folder / "units.jsonl", folder / "made"
    rows = [{"id": f"u{n}", "units": [(n + k * k) % 16 for k in range(1, 9)], "durations": [2] * 8} for n in range(6)]
    if verb in ("extract", "fit"):
        rows = [{"id": "a", "audio": str(root / "sounds" / "question.wav"), "samples": 16_000, "sample_rate": 16_000}]
    if rng.random() < 0.6:
        at = rng.randrange(len(rows))
        rows[at] = changed(rng, rows[at])
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = [spoil(rng, lines, folder)] if rng.random() < 0.3 else ["lines"]
    place, encoder = root / "model", root / "encoder"
    if rng.random() < 0.3:
        place, more = spoilt(rng, place, folder)
        notes += more
    if verb in ("extract", "fit") and rng.random() < 0.6:
        encoder, more = spoilt(rng, encoder, folder)
        notes += more
    argv = {
        "words": ["words", str(lines), "-o", str(made), "--decoder", rng.choice(("bigram", "unigram", "bpe", ""))],
        "speak": ["speak", str(lines), "--vocoder", str(place / "vocoder"), "--out-dir", str(folder / "speech")],
        "extract": ["extract", str(lines), "--encoder", str(encoder), "--units", str(place / "units"), "-o", str(made)],
        "fit": ["fit", str(lines), "--encoder", str(rng.choice((encoder, encoder, root / "home", place / "encoder"))),
                "--layer", rng.choice(("1", "2", "99")), "--k", rng.choice(("2", "1", "999999")), "-o", str(made)],
    }[verb]  # fmt: skip
    if verb == "speak":
        return Case("units", ["units", *argv, *rng.choice(([], ["--keep-durations"]))], folder, None, [verb, *notes])
    return Case("units", ["units", *argv], folder, None, [verb, *notes], made)
