"""Where the pieces of a released model lie: a local folder or a hub name, and its encoder and vocoder beside it.

EchoX-8B/                 config.json, shards, tokenizer.json
EchoX-8B/encoder/         or whisper-large-v3/ in it, or beside it: the Whisper encoder that config.json names
EchoX-8B/vocoder/         ours; or g_00500000 with vocoder_config.json: fairseq's, read by the restricted unpickler
"""

from pathlib import Path
from typing import Any

from echox.errors import ModelError
from echox.hub import fetch_snapshot
from echox.models.latent_vocoder import LatentVocoder
from echox.models.vocoder import UnitVocoder
from echox.released.config import ReleasedConfig
from echox.released.keymap import TOWER

# whisper-large-v3 holds model.fp32-* too, another 6 GB
_ENCODER_FILES = ["config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]


def find_encoder(folder: Path, config: ReleasedConfig, given: str | Path | None = None) -> Path:
    """Return the Whisper folder that belongs to a checkpoint, fetching it as the last resort; ModelError names the
    places.
    """
    if given is not None:
        return Path(given) if Path(given).is_dir() else fetch_snapshot(str(given), _ENCODER_FILES)
    named = config.audio_tower or "whisper-large-v3"
    tail = Path(named).name
    near = [home / name for home in (folder, folder.parent) for name in (named, tail)]
    places = [folder / "encoder", *near, Path(named)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    published = named if named.count("/") == 1 and named[0] not in "./~" else f"openai/{tail}"
    try:
        return fetch_snapshot(published, _ENCODER_FILES)
    except ModelError as error:
        raise ModelError(
            f"the encoder {named} of {folder} is not there: put it at {folder / 'encoder'} or {folder.parent / tail}, "
            f"or name its folder ({error})."
        ) from error


def check_width(where: Path, width: object, config: ReleasedConfig) -> None:
    """Raise ModelError unless the encoder in `where` is as wide as the checkpoint's adapter reads."""
    if width != config.adapter_size:
        raise ModelError(f"{where} is {width} wide; expected {config.adapter_size} (adapter_size of the checkpoint).")


def find_vocoder(folder: Path, given: str | Path | None = None) -> UnitVocoder | LatentVocoder:
    """Load the vocoder of a checkpoint, ours or fairseq's; ModelError when there is none."""
    from echox.generate.parts import load_vocoder
    from echox.released.fairseq_vocoder import load_fairseq_vocoder

    place = Path(given) if given is not None else folder / "vocoder"
    if (place / "model.safetensors").is_file():
        return load_vocoder(place)
    root = place if given is not None else folder
    newest = root if root.is_file() else newest_generator(root)
    if newest is not None:
        for name in ("vocoder_config.json", "config.json"):
            if (newest.parent / name).is_file() and (name != "config.json" or given is not None):
                return load_fairseq_vocoder(newest, newest.parent / name)
        raise ModelError(f"{newest} has no vocoder_config.json beside it: copy it there.")
    raise ModelError(f"no vocoder in {root}: expected vocoder/ or g_00500000 with vocoder_config.json; name one.")


def newest_generator(folder: Path) -> Path | None:
    """Return fairseq's vocoder of most steps in a folder: of g_00090000 and g_100000 the second."""

    def steps(path: Path) -> int:
        number = path.name.removeprefix("g_")
        return int(number) if number.isdecimal() else -1

    return max(sorted(folder.glob("g_*")), key=steps, default=None)


def whisper_settings(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the Whisper sizes that an encoder's tensors imply; every Whisper has heads 64 wide."""
    shapes = {name.removeprefix(TOWER): shape for name, shape in shapes.items() if name.startswith(TOWER)}
    width, mels, _ = shapes["conv1.weight"]
    layers = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("layers."))
    return {
        "d_model": width,
        "num_mel_bins": mels,
        "encoder_layers": layers,
        "encoder_attention_heads": max(1, width // 64),
        "encoder_ffn_dim": shapes["layers.0.fc1.weight"][0],
        "max_source_positions": shapes["embed_positions.weight"][0],
        "pad_token_id": None,
    }
