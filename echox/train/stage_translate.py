"""S-Align's two stages in one: text pairs in, a text model out; or that and speech in, one model of three tasks out.

Without speech in `data` it is the text model's pretraining. `start` is where the joint stage begins: a folder of the first.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import model_validator

from echox.config.load import Settings, known
from echox.data.batching import runs_under
from echox.data.translation import Triple, TripleBatch, TripleBatches, TripleData, read_pairs, read_triples
from echox.errors import ConfigError
from echox.generate.ctc import greedy
from echox.models.io import settings_from
from echox.models.speech_translator import BLANK, SpeechTranslatorModel, TranslatorConfig
from echox.objectives.modality import AlignmentSettings, Schedule
from echox.objectives.translation import DiscriminatorObjective, JointPass, TranslationWeights, TranslatorObjective
from echox.text.pieces import VOCABULARY, Pieces
from echox.train.evaluate import mean_loss
from echox.train.loop import OptimSettings, Player, Stage, TrainSettings
from echox.train.ranks import Ranks
from echox.train.stage_align import edit_distance


class Recipe(Settings):
    """Recipe of stage `translate`."""

    stage: Literal["translate"]
    out: Path
    seed: int = 0
    vocabulary: Path | None = None  # folder of stage `vocabulary`; none: that of `start`
    start: Path | None = None  # a text model to begin with
    model: Annotated[dict[str, Any], known(TranslatorConfig)] = {}
    data: TripleData
    weights: TranslationWeights = TranslationWeights()
    alignment: AlignmentSettings = AlignmentSettings()
    schedule: Schedule = Schedule()
    discriminator: OptimSettings = OptimSettings(lr=2e-4, betas=(0.9, 0.98), weight_decay=0.0, schedule="constant")
    train: TrainSettings

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.vocabulary is None and self.start is None:
            raise ValueError("name a vocabulary, or a start that holds one")
        if not (self.data.corpora or self.data.pairs):
            raise ValueError("data names neither corpora nor pairs")
        if self.alignment.asked and not self.data.corpora:
            raise ValueError("alignment needs speech: name data.corpora")
        return self


def build(recipe: Recipe) -> Stage:
    """Return the stage; data is read once into memory."""
    torch.manual_seed(recipe.seed)
    pieces, data = load_pieces(recipe), recipe.data
    spoken = read_triples(data.corpora, data.states, data, pieces)
    typed = read_pairs(data.pairs, data, pieces)
    held_out = read_triples(data.held_out, data.held_out_states, data, pieces) + read_pairs(
        data.held_out_pairs, data, pieces
    )
    width = spoken[0].states_TD.shape[1] if spoken and spoken[0].states_TD is not None else 0
    model = build_model(recipe, pieces, width)
    joint = JointPass(model, pieces.starts_word, recipe.weights, recipe.alignment, recipe.schedule)
    a_step = recipe.train.accumulate * Ranks.here().world
    batches = TripleBatches([spoken, typed], data.max_cost, recipe.seed, a_step)

    def save(folder: Path) -> None:
        model.save(folder)
        pieces.save(folder)

    def evaluate() -> dict[str, float]:
        return measure(joint, held_out, data.max_cost)

    check = evaluate if held_out else None
    return Stage(joint, players_of(recipe, joint), batches, save, check, recipe.train.save_every)


def players_of(recipe: Recipe, joint: JointPass) -> list[Player]:
    """Return the discriminator, where one learns, and then the model."""
    players = [Player("model", TranslatorObjective(joint), ("model.*",), recipe.train.optim)]
    if recipe.alignment.target != "none" and recipe.alignment.learns:
        judge = Player("discriminator", DiscriminatorObjective(joint), ("discriminator.*",), recipe.discriminator)
        players.insert(0, judge)
    return players


def load_pieces(recipe: Recipe) -> Pieces:
    """Return the vocabulary; ConfigError where it is another than that of `start`."""
    pieces = Pieces.load(recipe.vocabulary or recipe.start or "")
    if recipe.start is not None and (own := Pieces.load(recipe.start)).content != pieces.content:
        raise ConfigError(
            f"{recipe.vocabulary} has another vocabulary ({pieces.size} pieces) than {recipe.start / VOCABULARY} ({own.size}): "
            "leave `vocabulary` out."
        )
    return pieces


def build_model(recipe: Recipe, pieces: Pieces, encoder_width: int) -> SpeechTranslatorModel:
    """Return a new model, with the text weights of `start` where there is one; ConfigError when its sizes differ."""
    rule = recipe.data.source
    written = {"source_lower": rule.lower, "source_punctuation": rule.punctuation}
    sizes = dict(recipe.model) | written | {"vocab_size": pieces.size, "encoder_width": encoder_width}
    if recipe.start is None:
        settings_from(TranslatorConfig, sizes, "model")
        return SpeechTranslatorModel(TranslatorConfig(**sizes))
    text = SpeechTranslatorModel.load(recipe.start)
    fixed = {"width", "ffn", "heads", "encoder_layers", "decoder_layers"} & set(recipe.model)
    for name in fixed:
        if recipe.model[name] != getattr(text.config, name):
            raise ConfigError(f"model.{name} is {recipe.model[name]}, {recipe.start} has {getattr(text.config, name)}.")
    values = {name: getattr(text.config, name) for name in TranslatorConfig.__annotations__ if name != "model_type"}
    model = SpeechTranslatorModel(TranslatorConfig(**(values | sizes)))
    model.text.load_state_dict(text.text.state_dict())
    return model


@torch.no_grad()
def measure(joint: JointPass, rows: list[Triple], max_cost: int) -> dict[str, float]:
    """Return losses of held-out rows, every part of the model on, and the token error of greedy CTC."""
    late = 1 << 40  # after every beginning in the schedule
    batches = [TripleBatch([rows[i] for i in run], late) for run in runs_under([row.cost for row in rows], max_cost)]
    loss = TranslatorObjective(joint)
    numbers = mean_loss(joint, batches, lambda batch: loss(joint(batch)))
    errors = total = 0
    joint.eval()
    for batch in batches:
        spoken = [row for row in batch.rows if row.states_TD is not None]
        if spoken:
            frames_BTD, lengths_B = batch.frames()
            heard = joint.model.hear(frames_BTD.to(joint.device), lengths_B.to(joint.device))
            for row, tokens in zip(spoken, greedy(heard.logits_BTV, heard.frames_B, BLANK), strict=True):
                errors += edit_distance(tokens, row.transcript)
                total += len(row.transcript)
    joint.train()
    return numbers | ({"token_error": errors / total} if total else {})
