"""Stage I, second half: speech to text with low-rank adapters (spec section 2); an aligned part and answers in, an S2T part out."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import nn

from echox.config.load import Share, known
from echox.data.batching import BucketedBatches, some_at_a_time
from echox.data.example import Example, QuestionData, padded_states, read_examples
from echox.data.states import layer_of
from echox.errors import ConfigError
from echox.models.io import settings_from
from echox.models.llm import Place, empty_llm, load_llm, load_tokenizer
from echox.models.lora import LoraSettings, attach_lora, lora_state
from echox.models.s2t import S2TInputs, SpeechToText
from echox.objectives.s2t import AlignPass, AnswerPass, S2TObjective
from echox.text.prompt import Prompt, encode, question_prompt
from echox.train.evaluate import mean_loss
from echox.train.loop import Player, Stage, TrainingRecipe

HEARING = ("linear", "transformer", "norm", "blank", "ctc_bias", "ctc_scale")  # what CTC alignment trained


class Recipe(TrainingRecipe):
    """Recipe of stage `s2t`."""

    stage: Literal["s2t"]
    llm: Path
    start: Path  # the aligned part
    system: str | None = None  # none: the aligned part's
    data: QuestionData
    typed: Path | None = None  # JSONL with `question`, `answer`: rows that are only ever typed
    typed_probability: Share = 0.25  # spoken rows that are read from their transcript, to keep what is typed working
    train_hearing: bool = True  # False: the CTC path stays as aligned, and ctc_weight must be 0
    ctc_weight: NonNegativeFloat = 0.3  # spec section 2.3
    negatives: NonNegativeInt = 1500
    llm_dtype: Literal["float32", "bfloat16"] = "float32"  # of the frozen weights
    lora: Annotated[dict[str, Any], known(LoraSettings)] | None = None  # none: the aligned part's


def build(recipe: Recipe) -> Stage:
    """Return the stage; encoder states stay on disk."""
    torch.manual_seed(recipe.seed)
    if not recipe.train_hearing and recipe.ctc_weight:
        raise ConfigError("train_hearing is off and ctc_weight is not 0: there is nothing for CTC to train.")
    if recipe.data.answers is None:
        raise ConfigError("data.answers is missing: name the JSONL of the answers to learn.")
    tokenizer, llm = load_tokenizer(recipe.llm), load_llm(recipe.llm, Place(dtype=getattr(torch, recipe.llm_dtype)))
    model = SpeechToText.load(recipe.start, llm)
    model.config.encoder_layer = layer_of(recipe.data.states, model.config.encoder_layer, recipe.start)
    if recipe.system is not None:
        model.config.system = recipe.system
    dialect, stop = model.config.dialect_of(tokenizer), tokenizer.eos_token_id
    prompt = question_prompt(dialect)
    data = read_examples(recipe.data, lambda text: encode(tokenizer, text), stop, recipe.typed).opened(dialect.opening)
    width, settings = data.width, settings_from(LoraSettings, recipe.lora or model.config.lora, "lora")
    attach_lora(llm, settings)

    def collate(rows: list[Example], typed: list[bool]) -> S2TInputs:
        read = [replace(row, states_TD=None) if t else row for row, t in zip(rows, typed, strict=True)]
        return asked(prompt, read, width, [row.answer for row in rows])

    def mixed(items: list[int], rng: np.random.Generator) -> S2TInputs:
        rows = [data.train[i] for i in items]
        return collate(rows, [r.states_TD is None or bool(rng.random() < recipe.typed_probability) for r in rows])

    around = len(prompt.before) + len(prompt.after)
    batches = BucketedBatches([row.cost(around) for row in data.train], recipe.data.max_cost, mixed, recipe.seed)
    stage_model = AnswerPass(model, AlignPass(model, recipe.negatives) if recipe.ctc_weight else None)

    def evaluate() -> dict[str, float]:
        rows = data.held_out[:128]
        some = some_at_a_time(rows, [row.cost(around) for row in rows], recipe.data.max_cost)
        found = {}
        for name, typed in (("spoken", False), ("typed", True)):
            inputs = (collate(rows, [typed] * len(rows)) for rows in some)
            numbers = mean_loss(stage_model, inputs, S2TObjective(0.0))
            found |= {f"{name}_{key}": numbers[key] for key in ("ce", "accuracy")}
        return found

    def save(folder: Path) -> None:
        save_trained(model, llm, settings, recipe.llm, folder)

    trains = trained_names(stage_model, recipe.train_hearing)
    player = Player("s2t", S2TObjective(recipe.ctc_weight), trains, recipe.train.optim)
    return Stage(stage_model, [player], batches, save, evaluate, recipe.train.save_every)


def asked(prompt: Prompt, rows: list[Example], width: int, answers: list[list[int]]) -> S2TInputs:
    """Return the LLM's batch of questions with answers to them; rows without states are typed."""
    typed, transcripts = [row.states_TD is None for row in rows], [row.transcript for row in rows]
    around = (prompt.before, prompt.after, answers, transcripts, typed, prompt.unseen)
    return S2TInputs(*padded_states(rows, width), *around)


def trained_names(model: nn.Module, hearing: bool, prefix: str = "model.") -> tuple[str, ...]:
    """Return the names of the low-rank matrices and the adapter's parameters, those of its CTC path if `hearing`.

    A CTC head of its own stays as it is (spec section 2.1 step 4).
    """
    names = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    still = tuple(f"{prefix}adapter.{part}" for part in (("head",) if hearing else ("head", *HEARING)))
    adapter = [n for n in names if n.startswith(f"{prefix}adapter.") and not n.startswith(still)]
    return (*adapter, *(name for name in names if ".lora_" in name))


def save_trained(model: SpeechToText, llm: nn.Module, settings: LoraSettings, source: Path, folder: Path) -> None:
    """Write the part with the low-rank matrices that peft trained."""
    config: Any = type(model.config).from_dict(model.config.to_dict() | {"lora": asdict(settings)})
    part = SpeechToText(config, empty_llm(source))
    part.adapter.load_state_dict(model.adapter.state_dict())
    part.ctc_tokens.copy_(model.ctc_tokens)
    part.lora.copy_from(lora_state(llm))
    part.save(folder)
