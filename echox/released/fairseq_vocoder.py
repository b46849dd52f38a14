"""fairseq's CodeHiFiGAN (`g_*` and its JSON) to our UnitVocoder, exactly; without pitch, for one or many speakers.

A many-speaker generator reads [unit embedding; speaker embedding] at every frame. For a chosen speaker the second half
is constant, so it is appended to every row of the embedding table, and the duration predictor gets zero weights for
it: the same numbers from a one-speaker vocoder, borders included.
"""

import math
from pathlib import Path
from typing import Any

import torch

from echox.errors import ConfigError, InputError, ModelError
from echox.files import CONFIG_BYTES, read_json, write_json
from echox.models.bounds import check_values
from echox.models.generators import VocoderConfig, add_weight_norm, check_config, from_released_names
from echox.models.vocoder import UnitVocoder
from echox.models.weights import is_finite, write_shards
from echox.released.unpickle import load_torch

_PREDICTOR_IN = "dur_predictor.conv1.0.weight"


def load_fairseq_vocoder(path: str | Path, config: str | Path, speaker: int | None = None) -> UnitVocoder:
    """Return the vocoder of a fairseq checkpoint with weight norm folded in; InputError or ModelError say what
    disagrees.
    """
    raw = read_json(config, CONFIG_BYTES)
    if not isinstance(raw, dict):
        raise InputError(f"{config} holds no settings: give the vocoder's config.json.")
    state = read_generator(path)
    settings = vocoder_settings(raw, str(config))
    state, settings = _fold_speaker(state, settings, raw, speaker, str(path))
    check_shapes(state, settings, str(path), str(config))
    vocoder = UnitVocoder(settings)
    vocoder.load_released(state)
    return vocoder.eval()


def read_generator(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors under `generator` of a checkpoint; InputError when there are none, ModelError when one is not finite."""
    content = load_torch(path)
    state = content.get("generator") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()) or not state:
        found = ", ".join(map(str, list(content)[:4])) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path} holds no vocoder: expected tensors under 'generator', found {found}.")
    broken = next((name for name, tensor in state.items() if not is_finite(tensor)), None)
    if broken:
        raise ModelError(f"{path}: tensor {broken} holds NaN or infinity: download it again.")
    return {name: tensor.float() for name, tensor in state.items()}


def vocoder_settings(raw: dict[str, Any], where: str) -> VocoderConfig:
    """Translate fairseq's JSON (spec section 5); ModelError for pitch inputs, another block type or a missing key."""
    if raw.get("f0") or raw.get("f0_quant_use_distance_embed"):
        raise ModelError(f"{where} asks for a pitch input (f0), which unit vocoders here do not take.")
    if str(raw.get("resblock", "1")) != "1":
        raise ModelError(f"{where} has resblock {raw['resblock']!r}; expected '1'.")
    if raw.get("embedder_params"):
        raise ModelError(f"{where} asks for a speaker encoder (embedder_params); expected a table of speakers or none.")
    predictor = raw.get("dur_predictor_params")
    if not isinstance(predictor, dict):
        raise ModelError(f"{where} has no dur_predictor_params: this vocoder needs frames, not reduced units.")
    try:
        values = {
            "generator": "hifigan",
            "num_units": raw["num_embeddings"],
            "embedding_dim": raw["embedding_dim"],
            "sample_rate": raw.get("sampling_rate", 16_000),
            "hop": math.prod(raw["upsample_rates"]),
            "upsample_rates": raw["upsample_rates"],
            "upsample_kernels": raw["upsample_kernel_sizes"],
            "upsample_channels": raw["upsample_initial_channel"],
            "resblock_kernels": raw["resblock_kernel_sizes"],
            "resblock_dilations": raw["resblock_dilation_sizes"],
            "duration_width": predictor["var_pred_hidden_dim"],
            "duration_kernel": predictor["var_pred_kernel_size"],
            "duration_dropout": predictor.get("var_pred_dropout", 0.5),
        }
    except (KeyError, TypeError) as error:
        raise ModelError(f"{where} is not a CodeHiFiGAN configuration ({error!r}).") from error
    check_values(VocoderConfig, values, where)
    settings = VocoderConfig(**values)
    try:
        check_config(settings)
    except ConfigError as error:
        raise ModelError(f"{where}: {error}") from error
    if raw.get("code_hop_size", settings.hop) != settings.hop:
        raise ModelError(
            f"{where} has code_hop_size {raw['code_hop_size']}; its upsample_rates multiply to {settings.hop}."
        )
    return settings


def _fold_speaker(
    state: dict[str, torch.Tensor], settings: VocoderConfig, raw: dict[str, Any], speaker: int | None, path: str
) -> tuple[dict[str, torch.Tensor], VocoderConfig]:
    if not raw.get("multispkr"):
        if "spkr.weight" in state:
            raise ModelError(f"{path} holds a table of speakers, and its configuration has no multispkr.")
        if speaker not in (None, 0):
            raise InputError(f"speaker {speaker} does not exist: {path} has one speaker.")
        return state, settings
    if "spkr.weight" not in state:
        raise ModelError(f"{path} holds no spkr.weight, and its configuration says multispkr.")
    count, width = state["spkr.weight"].shape
    if speaker is None or not 0 <= speaker < count:
        raise InputError(f"{path} has {count} speakers, 0 to {count - 1}; found {speaker}: give --speaker.")
    folded = {name: tensor for name, tensor in state.items() if name != "spkr.weight"}
    table, first = folded["dict.weight"], folded[_PREDICTOR_IN]
    folded["dict.weight"] = torch.cat([table, state["spkr.weight"][speaker].expand(len(table), width)], dim=1)
    folded[_PREDICTOR_IN] = torch.cat([first, first.new_zeros(len(first), width, first.shape[2])], dim=1)
    values = settings.to_dict() | {"embedding_dim": settings.embedding_dim + width}
    return folded, VocoderConfig.from_dict(values)


def check_shapes(state: dict[str, torch.Tensor], settings: VocoderConfig, path: str, config: str) -> None:
    """Raise ModelError at the first tensor that is missing, unknown or of a shape that the configuration does not imply."""
    with torch.device("meta"):
        vocoder = UnitVocoder(settings)
        add_weight_norm(vocoder.generator)
    wanted = {name: tuple(tensor.shape) for name, tensor in vocoder.state_dict().items()}
    names = dict(zip(from_released_names(state), state, strict=True))
    if missing := wanted.keys() - names:
        have = f"{len(wanted) - len(missing)} of {len(wanted)} tensors of the vocoder in {config}"
        raise ModelError(f"{path} holds {have}; it lacks {min(missing)}, in our names: is it another vocoder?")
    for own, name in names.items():
        found = tuple(state[name].shape)
        if own not in wanted:
            raise ModelError(
                f"{path} holds {name}, which the vocoder in {config} does not have: is it another vocoder?"
            )
        if found != wanted[own]:
            raise ModelError(f"{path} has {name} of shape {found}; expected {wanted[own]} from {config}.")


def convert_vocoder(
    path: str | Path, config: str | Path, folder: str | Path, speaker: int | None = None
) -> UnitVocoder:
    """Write our vocoder folder of a fairseq checkpoint, in float32; OutputError."""
    vocoder = load_fairseq_vocoder(path, config, speaker)
    write_shards(Path(folder), vocoder.state_dict().items())
    settings = vocoder.config.to_diff_dict() | {"architectures": ["UnitVocoder"], "model_type": "echox_vocoder"}
    write_json(Path(folder) / "config.json", settings)
    return vocoder
