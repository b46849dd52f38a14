"""`echox convert`: released checkpoints, fairseq vocoders, fairseq HuBERT and joblib k-means to our folders, and back.

Parses options and prints; all work is in echox/released. Nothing heavy is imported before it runs.
"""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint folder or hub name, g_*, HuBERT .pt or k-means .bin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    config: Annotated[Path | None, typer.Option(help="The vocoder's config.json.")] = None,
    speaker: Annotated[int | None, typer.Option(help="Which speaker of a many-speaker vocoder.")] = None,
    encoder: Annotated[str, typer.Option(help="Whisper folder or hub name; for k-means: the converted HuBERT.")] = "",
    layer: Annotated[
        int | None, typer.Option(help="Layer that the centroids were fitted on, if the name hides it.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--without-encoder", help="Leave the encoder where it is: name it when you load.")
    ] = False,
    to: Annotated[str, typer.Option(help="echox, or released: our folder of a checkpoint back to theirs.")] = "echox",
) -> None:
    """Convert other people's weights. Pickled files are read by a restricted reader that runs nothing in them."""
    from echox.errors import ConfigError
    from echox.files import write_folder
    from echox.released import convert as conversion

    if to not in ("echox", "released"):
        raise ConfigError(f"--to {to!r} is unknown: choose echox or released.")
    told = "the released layout"

    def write(folder: Path) -> None:
        nonlocal told
        if to == "released":
            conversion.restore_checkpoint(source, folder)
        else:
            kind = conversion.kind_of(source, config)
            told = _CONVERTERS[kind](source, folder, config, speaker, encoder, layer, reference)

    write_folder(output, write)  # whole or not at all, and never over what somebody else put there
    typer.echo(f"{output}: {told}")


def _checkpoint(
    source: str, output: Path, _config: object, _speaker: object, encoder: str, _layer: object, reference: bool
) -> str:
    from echox.released.convert import convert_checkpoint

    done = convert_checkpoint(source, output, encoder or None, reference)
    return f"{done.kind}, {done.llm.num_hidden_layers} layers, {done.units} unit tokens"


def _vocoder(source: str, output: Path, config: Path | None, speaker: int | None, *_rest: object) -> str:
    from echox.released.fairseq_vocoder import convert_vocoder

    place = config or Path(source).parent / "config.json"
    done = convert_vocoder(source, place, output, speaker)
    return f"vocoder of {done.config.num_units} units at {done.config.sample_rate} Hz"


def _hubert(source: str, output: Path, *_rest: object) -> str:
    from echox.released.fairseq_hubert import convert_hubert

    done = convert_hubert(source, output)
    return f"HuBERT of {done['num_hidden_layers']} layers, {done['hidden_size']} wide"


def _kmeans(
    source: str, output: Path, _config: object, _speaker: object, encoder: str, layer: int | None, _reference: object
) -> str:
    from echox.released.kmeans_bin import convert_kmeans

    done = convert_kmeans(source, output, encoder, layer)
    return f"{done.k} units from layer {done.layer}"


_CONVERTERS = {
    "checkpoint": _checkpoint,
    "ours": _checkpoint,
    "vocoder": _vocoder,
    "hubert": _hubert,
    "kmeans": _kmeans,
}
