"""The voice stage: utterances of stage `teacher` -> a LatentVocoder folder that holds the teacher's decoder, untouched.

Plain regression: the targets are exactly what the decoder was given, so that no discriminator and no spectral loss is needed.

Legend: U units.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from echox.config.load import Settings, Share, known
from echox.data.batching import groups
from echox.data.latents import LatentBatch, LatentSegments, Utterances
from echox.errors import ConfigError
from echox.models.io import load_config, load_module, save_part
from echox.models.latent_vocoder import LatentVocoder, LatentVocoderConfig, mean_durations
from echox.models.spectral import SpectralConfig, SpectralDecoder
from echox.objectives.voice import VoiceObjective, VoicePass
from echox.train.evaluate import mean_loss
from echox.train.loop import Player, Stage, TrainingRecipe


class VoiceSettings(Settings):
    """Data, sizes and losses of one run."""

    teacher: Path  # folder of stage `teacher`
    held_out: NonNegativeInt = 50  # the first so many utterances are never trained on
    segment_frames: PositiveInt = 100  # 50 a second
    batch_size: PositiveInt = 12
    stateless: Share = 0.25  # of the segments are learnt from units alone, where the utterances have states
    model: Annotated[dict[str, Any], known(LatentVocoderConfig)] = {}
    prosody: NonNegativeFloat = 0.3  # weight of voicing, pitch and energy
    durations: NonNegativeFloat = 0.1  # weight of the duration network's loss
    evaluate_every: NonNegativeInt = 0  # steps; 0 means never


class Recipe(TrainingRecipe):
    """A recipe of this stage."""

    stage: Literal["voice"]
    start: Path | None = None  # a trained voice to go on from, with its own sizes instead of `voice.model`
    voice: VoiceSettings


def build(recipe: Recipe) -> Stage:
    """Return the stage for the loop; InputError and ConfigError say what is missing."""
    settings = recipe.voice
    torch.manual_seed(recipe.seed)
    utterances = Utterances(settings.teacher)
    vocoder = network(recipe, utterances)
    hops = (vocoder.config.hop, vocoder.decoder.config.hop)  # 480 and 300 samples: 5 frames are 8 decoder frames
    sizes = (settings.segment_frames, settings.batch_size, hops)
    segments = LatentSegments(utterances, *sizes, settings.held_out, recipe.seed, stateless=settings.stateless)
    model, objective = VoicePass(vocoder), VoiceObjective(settings.prosody, settings.durations)
    moved = tuple(name for name, _ in model.named_parameters() if not name.startswith("vocoder.decoder."))

    def save(folder: Path) -> None:
        vocoder.config.duration_stretch = fitting_stretch(vocoder, utterances, settings.held_out)
        save_part(folder, vocoder)

    return Stage(
        model=model,
        players=[Player("voice", objective, moved, recipe.train.optim)],
        batches=segments,
        save=save,
        evaluate=lambda: measure(model, segments, settings, objective),
        evaluate_every=settings.evaluate_every,
    )


def network(recipe: Recipe, utterances: Utterances) -> LatentVocoder:
    """Return the network around the teacher's decoder, new or as `start` left it; ConfigError when it does not fit."""
    decoder = recipe.voice.teacher / "decoder"
    sizes = load_config(decoder, SpectralConfig)
    if recipe.start is not None:
        config = load_config(recipe.start, LatentVocoderConfig)
        if config.decoder != settings_of(sizes):
            raise ConfigError(f"{recipe.start} speaks through another decoder than {decoder}: train from nothing.")
        vocoder = load_module(recipe.start, lambda: LatentVocoder(config)).float()
        if utterances.state_width != config.state_width:
            vocoder = reading_states(vocoder, utterances.state_width, recipe.start)
    else:
        given = {"decoder": settings_of(sizes), "sample_rate": sizes.sample_rate, "state_width": utterances.state_width}
        if settled := given.keys() & recipe.voice.model.keys():
            raise ConfigError(f"voice.model.{min(settled)} follows from {recipe.voice.teacher}: leave it out.")
        config = LatentVocoderConfig(**recipe.voice.model, **given)
        vocoder = LatentVocoder(config)
        for buffer, values in zip((vocoder.mean_O, vocoder.spread_O), utterances.statistics(), strict=True):
            buffer.copy_(torch.from_numpy(values))
    vocoder.decoder = load_module(decoder, lambda: SpectralDecoder(sizes)).float()
    if vocoder.writer_W is not None:
        vocoder.writer_W.copy_(torch.from_numpy(utterances.writer_W))
    largest = max(int(units.max()) for units in utterances.units)
    if largest >= config.num_units:
        raise ConfigError(f"{recipe.voice.teacher} holds unit {largest}: raise voice.model.num_units.")
    return vocoder


def reading_states(vocoder: LatentVocoder, width: int, start: Path) -> LatentVocoder:
    """Return a voice that speaks as `vocoder` and can learn to read states so wide; ConfigError if it reads others."""
    if vocoder.state_width:
        found = f"states {width} wide" if width else "no states"
        raise ConfigError(
            f"{start} reads states {vocoder.state_width} wide and voice.teacher holds {found}: they do not fit."
        )
    config = copy(vocoder.config)
    config.state_width = width
    wider = LatentVocoder(config)
    known = vocoder.state_dict()
    wider.load_state_dict({name: known.get(name, torch.zeros_like(new)) for name, new in wider.state_dict().items()})
    return wider


def settings_of(sizes: SpectralConfig) -> dict[str, int]:
    """Return the settings of a decoder without those of Hugging Face."""
    return {name: getattr(sizes, name) for name in SpectralConfig.__annotations__ if name != "model_type"}


def measure(
    model: VoicePass, segments: LatentSegments, settings: VoiceSettings, objective: VoiceObjective
) -> dict[str, float]:
    """Return the losses of held-out utterances, and as `stateless/` those of their units alone where it learns from these too."""
    batches = [*measured(segments, settings)]
    numbers = mean_loss(model, batches, objective)
    if not (settings.stateless and model.vocoder.state_width):
        return numbers
    alone = (replace(batch, states_BTW=batch.states_BTW * 0) for batch in batches)
    return numbers | {f"stateless/{name}": value for name, value in mean_loss(model, alone, objective).items()}


def measured(segments: LatentSegments, settings: VoiceSettings) -> Iterator[LatentBatch]:
    """Yield the beginnings of the held-out utterances, as many at a time as a batch has."""
    for some in groups(range(settings.held_out), settings.batch_size):
        yield segments.collate([(index, 0) for index in some])


@torch.no_grad()
def fitting_stretch(vocoder: LatentVocoder, utterances: Utterances, held_out: int) -> float:
    """Return the true length of held-out speech over the sum of its predicted durations; 1 without any."""
    true = predicted = 0.0
    for index in range(min(held_out, len(utterances))):
        units, lengths = torch.unique_consecutive(torch.from_numpy(utterances.unit_rows(index)), return_counts=True)
        states_UW = torch.from_numpy(utterances.state_rows(index))[lengths.cumsum(0) - lengths]
        logits_UD = vocoder.durations(units[None].to(vocoder.device), states_UW[None].to(vocoder.device))[0]
        predicted += float(mean_durations(logits_UD.float().softmax(-1)).sum())
        true += int(lengths.clamp(max=vocoder.config.max_duration).sum())
    return round(true / predicted, 3) if predicted else 1.0
