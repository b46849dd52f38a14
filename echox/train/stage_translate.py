"""S-Align's two stages in one: text pairs in, a text model out; or that and speech in, one model of three tasks out.

Without speech in `data` it is the text model's pretraining. `start` is where the joint stage begins: a folder of the first. With
`best`, held-out rows are translated while it trains, and the mean of the weights that are best by them is what is written.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import nn

from echox.config.load import Settings, known
from echox.data.batching import in_runs, some_at_a_time
from echox.data.translation import Triple, TripleBatches, TripleData, read_pairs, read_triples
from echox.errors import ConfigError
from echox.generate.ctc import greedy
from echox.generate.written import write_best
from echox.models.hearing import Hearing
from echox.models.io import settings_from
from echox.models.speech_translator import BLANK, SpeechTranslatorModel, TranslatorConfig
from echox.objectives.modality import AlignmentSettings, Schedule
from echox.objectives.translation import DiscriminatorObjective, JointPass, TranslationWeights, TranslatorObjective
from echox.text.bleu import text_bleu
from echox.text.pieces import VOCABULARY, Pieces
from echox.train.best import Best, Selection
from echox.train.evaluate import mean_loss, still
from echox.train.loop import OptimSettings, Player, Stage, TrainingRecipe
from echox.units.distance import error_rate

AFTER_ALL = 1 << 40  # a step after every beginning in the schedule
ENCODER = "encoder"  # folder of an encoder that learnt, beside the model's own files


class TextSelection(Selection):
    """Which held-out number chooses the weights that are averaged, and on how many rows it is measured."""

    by: Literal["bleu", "loss"] = "bleu"  # BLEU of what is made of speech, or of text where no speech is held out
    rows: PositiveInt = 200  # of each, translated
    beams: PositiveInt = 1


class EncoderSettings(Settings):
    """A speech encoder that is part of the model and reads sound, instead of states that were cached."""

    folder: Path  # of any Hugging Face speech encoder
    layer: PositiveInt  # 1 is the first block's output
    trainable: bool = True


class Recipe(TrainingRecipe):
    """Recipe of stage `translate`."""

    stage: Literal["translate"]
    vocabulary: Path | None = None  # folder of stage `vocabulary`; none: that of `start`
    start: Path | None = None  # a text model to begin with, or a model that hears already
    model: Annotated[dict[str, Any], known(TranslatorConfig)] = {}
    data: TripleData
    encoder: EncoderSettings | None = None  # none: data.states
    weights: TranslationWeights = TranslationWeights()
    alignment: AlignmentSettings = AlignmentSettings()
    schedule: Schedule = Schedule()
    discriminator: OptimSettings = OptimSettings(lr=2e-4, betas=(0.9, 0.98), weight_decay=0.0, schedule="constant")
    best: TextSelection | None = None  # instead of the last `train.average` checkpoints
    evaluate_every: int | None = Field(default=None, ge=1)  # steps; none: train.save_every

    @property
    def of_checkpoints(self) -> bool:
        """As before, and where the best is chosen whenever one is written."""
        return super().of_checkpoints or (self.best is not None and self.evaluate_every is None)

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.vocabulary is None and self.start is None:
            raise ValueError("name a vocabulary, or a start that holds one")
        if not (self.data.corpora or self.data.pairs):
            raise ValueError("data names neither corpora nor pairs")
        if self.alignment.asked and not self.data.corpora:
            raise ValueError("alignment needs speech: name data.corpora")
        if self.encoder and (self.data.states or self.data.held_out_states):
            raise ValueError("an encoder hears the corpora itself: leave data.states and data.held_out_states out")
        if self.encoder and not self.data.corpora:
            raise ValueError("an encoder needs speech: name data.corpora")
        if self.best and not (self.data.held_out or self.data.held_out_pairs):
            raise ValueError("best is measured on held-out rows: name data.held_out or data.held_out_pairs")
        if self.best and self.train.average > 1:
            raise ValueError("best and train.average both say what is averaged: set train.average to 1")
        return self


def build(recipe: Recipe) -> Stage:
    """Return the stage; encoder states stay on disk."""
    torch.manual_seed(recipe.seed)
    pieces, data = load_pieces(recipe), recipe.data
    hears = Hearing.from_pretrained(recipe.encoder.folder, recipe.encoder.layer) if recipe.encoder else None
    spoken = read_triples(data.corpora, None if hears else data.states, data, pieces)
    typed = read_pairs(data.pairs, data, pieces)
    held_out = read_triples(data.held_out, None if hears else data.held_out_states, data, pieces)
    held_out += read_pairs(data.held_out_pairs, data, pieces)
    width = spoken[0].states_TD.shape[1] if spoken and spoken[0].states_TD is not None else 0
    model = build_model(recipe, pieces, hears.width if hears else width)
    joint = JointPass(model, pieces.starts_word, recipe.weights, recipe.alignment, recipe.schedule, hears)
    batches = TripleBatches([spoken, typed], data.max_cost, recipe.seed)

    learning = hears if recipe.encoder and recipe.encoder.trainable else None
    learns = nn.ModuleDict({"model": model} | ({"encoder": learning} if learning else {}))
    best = Best(recipe.out, recipe.best, learns) if recipe.best else None
    if recipe.best and recipe.best.by == "bleu" and not any(row.translation for row in held_out):
        raise ConfigError("best.by is bleu and no held-out row has a translation: choose by loss, or hold out others.")

    def save(folder: Path) -> None:
        if best:
            best.take_mean()
        model.save(folder)
        pieces.save(folder)
        if learning:
            learning.save(folder / ENCODER)

    def evaluate() -> dict[str, float]:
        numbers = measure(joint, held_out, data.max_cost)
        if best and recipe.best:
            numbers |= measure_bleu(joint, held_out, pieces, recipe.best, data.max_cost)
            best.offer(numbers)
        return numbers

    check, every = evaluate if held_out else None, recipe.evaluate_every or recipe.train.save_every
    players, parts = players_of(recipe, joint), check is not None
    moved = ("recognition",)
    return Stage(joint, players, batches, save, check, every, evaluates_parts=parts, buffers=moved, by_step=True)


def players_of(recipe: Recipe, joint: JointPass) -> list[Player]:
    """Return the discriminator, where one learns, and then the model."""
    names = ("model.*", "encoder.*") if recipe.encoder and recipe.encoder.trainable else ("model.*",)
    players = [Player("model", TranslatorObjective(joint), names, recipe.train.optim)]
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
    """Return a new model, with the weights of `start` where there is one; ConfigError when its sizes differ."""
    rule = recipe.data.source
    written = {"source_lower": rule.lower, "source_punctuation": rule.punctuation}
    sizes: dict[str, Any] = dict(recipe.model) | written | {"vocab_size": pieces.size, "encoder_width": encoder_width}
    if recipe.start is None:
        return SpeechTranslatorModel(settings_from(TranslatorConfig, sizes, "model"))
    text = SpeechTranslatorModel.load(recipe.start)
    fixed = ["width", "ffn", "heads", "encoder_layers", "decoder_layers"]
    fixed += ["encoder_width", "convolutions", "kernel"] if text.speech and encoder_width else []
    for name in fixed:
        if (own := getattr(text.config, name)) != sizes.get(name, own):
            raise ConfigError(f"model.{name} is {sizes[name]}, {recipe.start} has {own}.")
    values = {name: getattr(text.config, name) for name in TranslatorConfig.__annotations__ if name != "model_type"}
    model = SpeechTranslatorModel(settings_from(TranslatorConfig, values | sizes, "model"))
    model.text.load_state_dict(text.text.state_dict())
    if model.speech and text.speech:
        own, theirs = model.speech.state_dict(), text.speech.state_dict()
        model.speech.load_state_dict(own | {name: theirs[name] for name in own if name in theirs})  # norms may differ
    expected = text.speech is not None and text.speech.last_norm is not None and text.config.runs == "tokens"
    if model.speech and model.speech.last_norm and model.config.runs == "tokens" and not expected:
        model.speech.last_norm.load_state_dict(text.text.model.encoder.layer_norm.state_dict())
    return model


def measure(joint: JointPass, rows: list[Triple], max_cost: int) -> dict[str, float]:
    """Return the losses of held-out rows as after the whole schedule, and the token error of greedy CTC."""
    batches = some_at_a_time(rows, [row.cost for row in rows], max_cost)
    numbers = mean_loss(joint, batches, TranslatorObjective(joint), AFTER_ALL)
    heard: list[tuple[list[int], list[int]]] = []
    with still(joint):
        for spoken in ([row for row in batch if row.spoken] for batch in batches):
            if spoken:
                found = joint.model.hear(*joint.frames(spoken))
                tokens = greedy(found.logits_BTV, found.frames_B, BLANK)
                heard += zip(tokens, (row.transcript for row in spoken), strict=True)
    return numbers | ({"token_error": error_rate(heard)} if heard else {})


def measure_bleu(
    joint: JointPass, rows: list[Triple], pieces: Pieces, selection: TextSelection, max_cost: int
) -> dict[str, float]:
    """Return BLEU of the first texts (`mt_bleu`) and recordings (`st_bleu`), and `bleu`, by which weights are selected."""
    typed = [row for row in rows if row.translation]
    kinds = {"mt_bleu": typed, "st_bleu": [row for row in typed if row.spoken]}
    numbers = {}
    with still(joint):
        for name, some in kinds.items():
            if chosen := some[: selection.rows]:
                said = _written(joint, chosen, name == "st_bleu", selection.beams, max_cost)
                wanted = [pieces.decode(row.translation) for row in chosen]
                numbers[name] = text_bleu([pieces.decode(tokens) for tokens in said], wanted)
    return numbers | {"bleu": numbers.get("st_bleu", numbers.get("mt_bleu", 0.0))}


def _written(joint: JointPass, rows: list[Triple], spoken: bool, beams: int, max_cost: int) -> list[list[int]]:
    """Return the tokens that the model writes for each row, from its speech or from its transcript."""
    model = joint.model

    def write(run: list[int]) -> list[list[int]]:
        some = [rows[number] for number in run]
        if spoken:
            states = model.shared_layers(model.shrink(model.hear(*joint.frames(some))))
        else:
            states = model.read(*joint.padded([row.transcript for row in some]))
        most = max(2 * len(row.translation) + 10 for row in some)
        return [tokens for tokens, _ in write_best(model, states, most, beams)]

    return in_runs([row.cost for row in rows], max_cost, write)
