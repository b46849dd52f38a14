"""`echox eval gap`: the acoustic-semantic gap. Do a model's states put a word beside one alike in sound, or in meaning?

EchoX (arXiv 2509.09174, section 5.2) looked at Hi, High and Hello: a speech model's states put Hi by High, a text model's by
Hello. Here 72 such sets (`gap_words.tsv`, our own) are measured in every layer of every view of a model (scorers/states.py).
One more row is made from letters and syllables alone: what a view must beat before it shows sound or meaning.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from echox.audio import load_audio
from echox.data.tables import table_rows
from echox.errors import ConfigError, InputError
from echox.eval.model_under_test import at_16k
from echox.eval.probes import can_turn_off, states_of, untouched
from echox.eval.results import OURS, write_results
from echox.eval.scorers.states import COSINES, measure_view, word_states
from echox.eval.stats import Interval
from echox.eval.tables import Items, Table, shown
from echox.files import refuse_others, write_text

LENGTH_ONLY = "length alone (letters, syllables)"


class WordSet(NamedTuple):
    """An anchor with one word alike in sound, one alike in meaning and one alike in neither."""

    anchor: str
    sound: str
    meaning: str
    neither: str


def run_gap(
    model: Any, name: str, sets: Sequence[WordSet], wave_of: Any, out: Path, voice: str = "no voice"
) -> list[Table]:
    """Return the tables of the gap benchmark and write gap.jsonl and gap.md into `out`.

    `wave_of` speaks a word (or is None) in what `voice` names. Raises ConfigError when the model shows no states.
    """
    refuse_others(out, ["gap.jsonl"], "gap.jsonl", OURS)
    refuse_others(out, ["gap.md", "gap.svg"], "gap.json*", b"{")  # older versions wrote gap.json
    sources, views = available(model, wave_of), []
    if not sources:
        needs = "typed_states, spoken_states, echo_states or unit_states"
        raise ConfigError(f"{name} shows no hidden states: it needs {needs}.")
    for view, (read, adapters) in tqdm(sources.items(), "views", disable=None):
        reader = states_of(model if adapters else untouched(model))
        views.append({"arm": "gap", "id": view} | measure_view(view, partial(read, reader), sets))
    views.append({"arm": "gap", "id": LENGTH_ONLY} | measure_view(LENGTH_ONLY, length_states, sets))
    settings = {"task": "gap", "model": name, "sets": len(sets), "voice": voice if wave_of else "nobody"}
    write_results(out / "gap.jsonl", settings, views)
    tables = gap_tables(settings, views)
    write_text(out / "gap.md", tables[0].markdown())
    return tables


def read_sets() -> list[WordSet]:
    """Return our word sets."""
    rows = table_rows(Path(__file__).with_name("gap_words.tsv"), WordSet._fields)
    return [WordSet(**row) for _, row in rows]


def available(
    model: Any, wave_of: Callable[[str], np.ndarray] | None
) -> dict[str, tuple[Callable[[Any, str], np.ndarray], bool]]:
    """Return the views that a model has, by printed name: what reads a word's states [layers, H], and whether adapters are on.

    The text LLM is read with its adapters off, and once more with them on where there are any. `wave_of` gives a word's
    speech at 16 kHz; without it the S2T LLM is left out.
    """
    off, found = can_turn_off(model), {}
    views: dict[str, tuple[str, Any, bool]] = {  # what reads it, what of a word it is given, whether adapters are on
        "text LLM": ("typed_states", str, not off),
        "text LLM, adapters on": ("typed_states", str if off else None, True),
        "S2T LLM": ("spoken_states", wave_of, True),
        "echo decoder": ("echo_states", str, True),
        "units": ("unit_states", str, True),
    }
    for name, (method, given, adapters) in views.items():
        if given is not None and hasattr(states_of(model), method):
            found[name] = (partial(_read, method, given), adapters)
    return found


def _read(method: str, given: Callable[[str], Any], reader: Any, word: str) -> np.ndarray:
    return word_states(getattr(reader, method)(given(word)))


def word_speaker(
    folder: Path | None, sets: Sequence[Any]
) -> tuple[Callable[[Any], Callable[[str], np.ndarray] | None], str]:
    """Return a function from a model to what speaks its words (a folder's recordings, or its own voice), and the voice's name."""
    if folder is None:
        return lambda model: partial(_said_by, model) if hasattr(model, "say") else None, "the model's own voice"
    words = {word for item in sets for word in item}
    missing = sorted(word for word in words if not (folder / f"{word}.wav").is_file())
    if missing:
        lacks = f"{', '.join(missing[:8])} ({len(missing)} of {len(words)} words)"
        raise InputError(f"{folder} lacks {lacks} as .wav files.")
    return lambda model: lambda word: load_audio(folder / f"{word}.wav"), f"the recordings in {folder.name}"


def _said_by(model: Any, word: str) -> np.ndarray:
    reply = model.say(word)
    if reply.audio is None:
        raise InputError(f"the model has no voice to say {word!r}: give --wavs.")
    return at_16k(reply.audio, reply.sample_rate)


def length_states(word: str) -> np.ndarray:
    """Return float64 [1, 2]: a word's letters and syllables (runs of vowels, without a silent e), for the baseline."""
    spoken = re.sub(r"(?<=[^aeiouy])e$", "", word.lower()) if len(word) > 3 and not word.endswith("le") else word
    return np.array([[float(len(word)), float(max(len(re.findall(r"[aeiouy]+", spoken.lower())), 1))]])


def gap_tables(settings: dict[str, Any], items: Items) -> list[Table]:
    """Return cosines, choice and probes at the first, middle and last layer of each view."""
    rows = []
    for view in items:
        last, probes = len(view["cosines"]) - 1, view["probes"]
        for layer in sorted({0, last // 2, last}):
            cosines = (f"{value:+.3f}" for value in view["cosines"][layer])
            value, low, high = view["sound_nearer"][layer]
            share = shown(Interval(value, low, high, view["sets"]), ".0f", 100)
            right = (f"{100 * probes[name][layer]:.0f}" for name in ("sound", "meaning"))
            rows.append((view["id"], str(view["sets"]), f"{layer} of {last}", *cosines, share, *right))
    note = f"{settings['model']}; {settings['sets']} sets, a view's own number beside it; words spoken by {settings['voice']}; "
    note += "text LLM: adapters off where there are any; cosines centred over all words; probes: ridge on |a-b| and a*b, against "
    note += "the same relation's word of another set, held-out sets, chance 50. A view shows sound or meaning only where it beats "
    note += "length alone. No scorer, no judge."
    cosines = (f"cos {name}" for name in COSINES)
    head = ("view", "sets", "layer", *cosines, "sound nearer than meaning %", "probe sound %", "probe meaning %")
    return [Table("Acoustic-semantic gap", head, tuple(rows), note)]
