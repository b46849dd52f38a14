"""`echox prepare`: from public text (texts, speak) or your own recordings to corpora, and what a small recogniser makes of them.

Parses options and prints; all work is in echox/prepare. Nothing heavy is imported before a verb runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from echox.commands.options import checked_shard, finite

app = typer.Typer(
    help="Make training corpora of public text, or of your own recordings.", no_args_is_help=True, add_completion=False
)

RecipeFile = Annotated[Path, typer.Argument(help="A data recipe, for example recipes/mini/data.yaml.")]
RecogniserFolder = Annotated[Path, typer.Option("--recogniser", help="Folder of a CTranslate2 Whisper (tiny.en).")]


def _local(pairs: list[str]) -> dict[str, Path]:
    local = {}
    for pair in pairs:
        name, equals, place = pair.partition("=")
        if not (name and equals and place):
            raise typer.BadParameter(f"{pair!r} is not NAME=PATH.")
        local[name] = Path(place)
    return local


@app.command()
def texts(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option(help="Folder for the five text files.")] = Path("data/texts"),
    source: Annotated[list[str] | None, typer.Option(help="NAME=PATH, a local copy of a source; repeat it.")] = None,
) -> None:
    """Choose questions and sentences, and hold out what will be measured."""
    from echox.prepare.recipe import load_data_recipe
    from echox.prepare.texts import write_texts

    for name, count in write_texts(load_data_recipe(recipe, _local(source or [])), out).items():
        typer.echo(f"{out / name}.jsonl  {count}")


@app.command()
def speak(
    recipe: RecipeFile,
    corpus: Annotated[str, typer.Argument(help="A corpus of the recipe, for example user.")],
    texts: Annotated[Path, typer.Option(help="Folder that `echox prepare texts` wrote.")] = Path("data/texts"),
    out: Annotated[Path, typer.Option(help="Folder that holds the corpora.")] = Path("data"),
    shard: Annotated[
        str, typer.Option(callback=checked_shard, help="I/N: make only every N-th shard, from the I-th.")
    ] = "0/1",
    kokoro: Annotated[Path | None, typer.Option(help="Folder of Kokoro's model, vocab.json and voices.")] = None,
) -> None:
    """Speak one corpus; run it again to resume, or with several --shard at once."""
    from tqdm import tqdm

    from echox.config.shard import shard_of
    from echox.prepare.recipe import load_data_recipe
    from echox.prepare.speak import Speaker, speak_corpus
    from echox.prepare.voices import make_voice

    settings = load_data_recipe(recipe)
    chosen, part = settings.corpus(corpus), shard_of(shard)
    speaker = Speaker(chosen, lambda choice: make_voice(choice, kokoro), settings.sample_rate)
    with tqdm(desc=corpus, unit=" texts", disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = speak_corpus(texts / chosen.texts, out / corpus, speaker, settings.shard_texts, part, advance)
    typer.echo(f"{out / corpus}  {made} made")


@app.command()
def recordings(
    table: Annotated[
        Path, typer.Argument(help="TSV file: id, text; or a questions file: id, question, answers, audio.")
    ],
    audio_dir: Annotated[Path, typer.Option(help="Folder of the recordings (<id>.wav, or as `audio` says).")],
    out: Annotated[Path, typer.Option(help="Folder of the new corpus.")],
    longest: Annotated[
        float, typer.Option(min=0.5, callback=finite, help="Seconds; longer recordings are left out.")
    ] = 28.0,
) -> None:
    """Make a corpus of your own recordings and what is said in them, without copying them."""
    from echox.prepare.recordings import write_recordings

    typer.echo(f"{out}  {write_recordings(table, audio_dir, out, longest)} recordings")


@app.command()
def pairs(
    corpus: Annotated[str, typer.Argument(help="voxpopuli or cvss.")],
    root: Annotated[Path, typer.Argument(help="Folder of the corpus as it is published.")],
    out: Annotated[Path, typer.Option(help="Folder for the two corpora, source and target.")] = Path("pairs"),
    source: Annotated[str, typer.Option(help="VoxPopuli: language that is spoken.")] = "es",
    target: Annotated[str, typer.Option(help="VoxPopuli: language of the interpreters.")] = "en",
    common_voice: Annotated[Path | None, typer.Option(help="CVSS: the Common Voice 4 folder of the source.")] = None,
    split: Annotated[str, typer.Option(help="CVSS: train, dev or test; VoxPopuli has only train.")] = "train",
    longest: Annotated[float, typer.Option(min=0.5, callback=finite, help="Seconds of a side.")] = 20.0,
    ratio: Annotated[
        float, typer.Option(min=1, callback=finite, help="How many times as long as the other a side may be.")
    ] = 3.0,
) -> None:
    """Make two corpora of published parallel speech, without copying it."""
    from echox.prepare.pairs import Limits, read_cvss, read_voxpopuli, write_corpora

    if corpus not in ("voxpopuli", "cvss"):
        raise typer.BadParameter(f"{corpus!r} is unknown: choose voxpopuli or cvss.", param_hint="CORPUS")
    if corpus == "cvss" and common_voice is None:
        raise typer.BadParameter("CVSS names clips of Common Voice 4: give its folder.", param_hint="--common-voice")
    if corpus == "voxpopuli" and (common_voice is not None or split != "train"):
        raise typer.BadParameter(
            "VoxPopuli has only the split train and needs no Common Voice: leave --split and --common-voice out."
        )
    found = read_voxpopuli(root, source, target) if common_voice is None else read_cvss(root, common_voice, split)
    typer.echo(f"{out}  {write_corpora(found, out, split, Limits(longest=longest, ratio=ratio))} pairs")


@app.command("pair-table")
def pair_table(
    source: Annotated[Path, typer.Argument(help="Corpus of the recordings.")],
    target: Annotated[Path, typer.Argument(help="Corpus of their translations, spoken.")],
    out: Annotated[Path, typer.Option(help="Folder for pairs.tsv and its sound files.")] = Path("test"),
) -> None:
    """Write what is measured: pairs.tsv with the sound files of both sides, for `echox eval translation`."""
    from echox.prepare.pairs import write_table

    typer.echo(f"{out / 'pairs.tsv'}  {write_table(source, target, out)} pairs")


@app.command()
def transcribe(
    folder: Annotated[Path, typer.Argument(help="Folder of real recordings without transcripts.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new corpus.")],
    recogniser: RecogniserFolder,
    min_log_probability: Annotated[
        float | None, typer.Option(callback=finite, help="Drop clips that are less sure than this; default: -0.35.")
    ] = None,
    held_out: Annotated[int, typer.Option(min=0, help="Leave out so many speakers and list them.")] = 0,
    spans: Annotated[
        int | None, typer.Option(min=1, help="So many stretches of one to five words of each, not the whole.")
    ] = None,
) -> None:
    """Make a corpus of real recordings with the recogniser's own transcripts."""
    from echox.prepare.filters import transcribe_real
    from echox.prepare.recogniser import Whisper

    kept, seen = transcribe_real(folder, out, Whisper(recogniser, beam=5), min_log_probability, held_out, spans)
    typer.echo(f"{out}  {kept} clips of {seen} recordings")


@app.command("filter")
def filter_corpus(
    manifest: Annotated[Path, typer.Argument(help="manifest.jsonl of a corpus.")],
    recogniser: RecogniserFolder,
    out: Annotated[Path | None, typer.Option(help="Write what is kept here, beside the manifest.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Measure only so many clips, and drop whole voices.")
    ] = None,
    max_error: Annotated[
        float,
        typer.Option(min=0, callback=finite, help="Highest word error kept (of a clip; of a voice with --sample)."),
    ] = 0.25,
) -> None:
    """Report word error by voice; drop clips, or with --sample whole voices, above a limit."""
    from echox.data.manifest import read_manifest
    from echox.prepare import filters
    from echox.prepare.recogniser import Whisper

    measured = filters.measure(manifest, Whisper(recogniser), sample)
    rates = filters.error_by_voice(measured)
    for voice, (rate, count) in rates.items():
        typer.echo(f"{100 * rate:6.1f} %  {count:6d}  {voice}")
    words = sum(record["words"] for record in measured)
    typer.echo(f"{100 * sum(record['errors'] for record in measured) / max(words, 1):6.1f} %  {len(measured):6d}  all")
    if out is not None:
        kept = filters.keep_clear(measured, max_error)
        if sample is not None:
            kept = filters.drop_voices(read_manifest(manifest), rates, max_error)
        filters.write_filtered(manifest, kept, out)
        typer.echo(f"{out}  {len(kept)} kept")
