"""`echox convert`: released checkpoints, fairseq vocoders, fairseq HuBERT and joblib k-means to our folders, and back.

Parses options and prints; all work is in echox/released. Nothing heavy is imported before it runs.
"""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint folder or hub name, g_*, HuBERT .pt or k-means .bin.")],
    output: Annotated[Path, typer.Option("--output", "--out", "-o", help="Folder to write.")],
    config: Annotated[Path | None, typer.Option(help="The vocoder's config.json.")] = None,
    speaker: Annotated[int | None, typer.Option(min=0, help="Which speaker of a many-speaker vocoder.")] = None,
    encoder: Annotated[str, typer.Option(help="Whisper folder or hub name; for k-means: the converted HuBERT.")] = "",
    layer: Annotated[
        int | None, typer.Option(min=0, help="Layer that the centroids were fitted on, if the name hides it.")
    ] = None,
    reference: Annotated[
        bool, typer.Option("--without-encoder", help="Leave the encoder where it is: name it when you load.")
    ] = False,
    to: Annotated[str, typer.Option(help="echox, or released: our folder of a checkpoint back to theirs.")] = "echox",
) -> None:
    """Convert other people's weights. Pickled files are read by a restricted reader that runs nothing in them."""
    from echox.errors import ConfigError
    from echox.files import write_folder

    if to not in ("echox", "released"):
        raise ConfigError(f"--to {to!r} is unknown: choose echox or released.")
    told = ""

    def write(folder: Path) -> None:
        nonlocal told
        if to == "released":
            from echox.released.convert import restore_checkpoint

            restore_checkpoint(source, folder)
            told = "the released layout"
        else:
            told = _convert(source, folder, config, speaker, encoder, layer, reference)

    write_folder(output, write)  # whole or not at all, and never over what somebody else put there
    typer.echo(f"{output}: {told}")


def _convert(
    source: str, folder: Path, config: Path | None, speaker: int | None, encoder: str, layer: int | None, bare: bool
) -> str:
    """Write ours of whatever `source` is into `folder`, and return what that was."""
    from echox.released.convert import convert_checkpoint, kind_of

    kind = kind_of(source, config)
    if kind == "vocoder":
        from echox.released.fairseq_vocoder import convert_vocoder

        voice = convert_vocoder(source, config or Path(source).parent / "config.json", folder, speaker).config
        return f"vocoder of {voice.num_units} units at {voice.sample_rate} Hz"
    if kind == "hubert":
        from echox.released.fairseq_hubert import convert_hubert

        sizes = convert_hubert(source, folder)
        return f"HuBERT of {sizes['num_hidden_layers']} layers, {sizes['hidden_size']} wide"
    if kind == "kmeans":
        from echox.released.kmeans_bin import convert_kmeans

        meta = convert_kmeans(source, folder, encoder, layer)
        return f"{meta.k} units from layer {meta.layer}"
    done = convert_checkpoint(source, folder, encoder or None, bare)
    return f"{done.kind}, {done.llm.num_hidden_layers} layers, {done.units} unit tokens"
