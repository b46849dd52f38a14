"""The vocoder stage: frame units and their speech -> a UnitVocoder folder; it knows files, losses are elsewhere.

Follows spec section 5: `hifigan` with all discriminators is a recipe for GPUs, `istft` with a quarter of
their width one for CPUs. Players: the discriminator first, then the generator.
"""

from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from echox.audio import as_int16
from echox.config.load import Settings, known
from echox.data.manifest import read_audio
from echox.data.states import read_ragged
from echox.data.vocoder_segments import Segments, SpeechUnits
from echox.errors import ConfigError
from echox.models.discriminators import Discriminators
from echox.models.io import save_part, settings_from
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.objectives.vocoder import VocoderLossSettings, VocoderObjective, VocoderPass, spectral_losses
from echox.train.evaluate import still
from echox.train.loop import Player, Stage, TrainingRecipe
from echox.train.optim import OptimSettings


class JudgeSettings(Settings):
    """Which discriminators train the generator; the defaults are HiFi-GAN's full set."""

    periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11)
    scales: NonNegativeInt = 3
    spectra: tuple[tuple[PositiveInt, PositiveInt], ...] = ()  # n_fft, hop
    width: PositiveFloat = 1.0  # share of HiFi-GAN's channels
    optim: OptimSettings = OptimSettings(lr=2e-4, betas=(0.8, 0.99), weight_decay=0.01, clip=1000.0)


class VocoderSettings(Settings):
    """Data, sizes, losses and length of one vocoder run."""

    speech: Path  # folder of shard-*.jsonl with their audio
    units: Path  # folder of shard-*.npz: one unit id per frame
    utterances: NonNegativeInt = 0  # read this many; 0 means all
    held_out: NonNegativeInt = 50  # the first so many utterances are never trained on
    segment_frames: PositiveInt = 28  # of 320 samples
    batch_size: PositiveInt = 16
    model: Annotated[dict[str, Any], known(VocoderConfig)] = {}
    judges: JudgeSettings = JudgeSettings()
    loss: VocoderLossSettings = VocoderLossSettings()
    evaluate_every: NonNegativeInt = 0  # steps; 0 means never


class Recipe(TrainingRecipe):
    """A recipe of this stage."""

    stage: Literal["vocoder"]
    vocoder: VocoderSettings


def build(recipe: Recipe) -> Stage:
    """Return the stage for the loop; InputError and ConfigError say what is missing."""
    settings = recipe.vocoder
    torch.manual_seed(recipe.seed)
    config = settings_from(VocoderConfig, settings.model, "model")
    vocoder, judges = UnitVocoder(config).train(), settings.judges
    discriminators = Discriminators(judges.periods, judges.scales, judges.spectra, judges.width)
    held_out, training = read_speech(settings, config)
    objective = VocoderObjective(discriminators, settings.loss, config.sample_rate)

    def save(folder: Path) -> None:
        vocoder.remove_weight_norm()
        save_part(folder, vocoder.eval())

    return Stage(
        model=VocoderPass(vocoder, discriminators, settings.loss.gan_samples),
        players=[
            Player("discriminator", objective.discriminator, ("judges.*",), judges.optim),
            Player("generator", objective.generator, ("vocoder.*",), recipe.train.optim),
        ],
        batches=Segments(training, settings.segment_frames, settings.batch_size, recipe.seed),
        save=save,
        evaluate=lambda: evaluate(vocoder, objective, held_out),
        evaluate_every=settings.evaluate_every,
    )


def read_speech(settings: VocoderSettings, config: VocoderConfig) -> tuple[SpeechUnits | None, SpeechUnits]:
    """Return what is held out, if anything, and what is trained on; ConfigError for none of that, and for units unknown."""
    pairs = [
        (as_int16(read_audio(record, settings.speech, config.sample_rate)), units)
        for record, units in islice(read_ragged(settings.units, settings.speech), settings.utterances or None)
    ]
    if settings.held_out >= len(pairs):
        raise ConfigError(f"vocoder.held_out leaves none of {settings.speech} for training: lower it.")
    parts = pairs[: settings.held_out], pairs[settings.held_out :]
    held_out, training = (SpeechUnits(*zip(*part, strict=True), hop=config.hop) if part else None for part in parts)
    assert training is not None  # noqa: S101  checked above
    largest = max(int(speech.frames_T.max()) for speech in (held_out, training) if speech)
    if largest >= config.num_units:
        raise ConfigError(f"{settings.units} holds unit {largest}: raise vocoder.model.num_units.")
    return held_out, training


def evaluate(vocoder: UnitVocoder, objective: VocoderObjective, held_out: SpeechUnits | None) -> dict[str, float]:
    """Return the log-mel distance of held-out speech made from its own units and durations."""
    if held_out is None:
        return {}
    total, resolutions = 0.0, objective.settings.resolutions
    with still(vocoder):
        for index in range(len(held_out)):
            wave, frames = held_out.utterance(index)
            made_BS = vocoder.synthesize(torch.as_tensor(frames, device=vocoder.device).long()[None]).float()
            real_BS = torch.as_tensor(wave, device=vocoder.device)[None]
            total += float(spectral_losses(made_BS, real_BS, resolutions, vocoder.config.sample_rate)[0])
    return {"mel": total / len(held_out)}
