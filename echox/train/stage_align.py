"""Stage I, first half: CTC alignment of the adapter (spec section 2.3); transcribed speech in, an S2T part out.

The LLM takes no part but for its embedding table, which is the CTC head.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import NonNegativeInt
from torch import nn

from echox.config.load import known
from echox.data.batching import BucketedBatches, some_at_a_time
from echox.data.example import Example, QuestionData, padded_states, read_examples
from echox.data.states import layer_of
from echox.models.adapter import AdapterConfig
from echox.models.io import settings_from
from echox.models.llm import load_llm, load_tokenizer
from echox.models.lora import LoraSettings
from echox.models.s2t import S2TConfig, S2TInputs, SpeechToText
from echox.objectives.s2t import AlignPass, align_loss
from echox.prepare.answers import SYSTEM
from echox.text.prompt import encode
from echox.train.evaluate import still
from echox.train.loop import Player, Stage, TrainingRecipe
from echox.units.distance import error_rate


class Recipe(TrainingRecipe):
    """Recipe of stage `align`."""

    stage: Literal["align"]
    llm: Path
    llm_source: dict[str, Any] = {}  # written into the part: which LLM these numbers belong to
    system: str = SYSTEM
    data: QuestionData
    adapter: Annotated[dict[str, Any], known(AdapterConfig)] = {}
    lora: Annotated[dict[str, Any], known(LoraSettings)] = {}  # low-rank matrices, which the next stage trains
    classes: Literal["seen", "all"] = "seen"  # LLM tokens CTC tells apart: those of the transcripts, or all there are
    negatives: NonNegativeInt = 1500  # classes sampled a step beside the batch's own; 0: every class


def build(recipe: Recipe) -> Stage:
    """Return the stage; encoder states stay on disk."""
    torch.manual_seed(recipe.seed)
    tokenizer, llm = load_tokenizer(recipe.llm), load_llm(recipe.llm)
    data = read_examples(recipe.data, lambda text: encode(tokenizer, text))
    embeddings = llm.get_input_embeddings()
    seen = {token for row in (*data.train, *data.held_out) for token in row.transcript}
    tokens = sorted(seen) if recipe.classes == "seen" else list(range(embeddings.num_embeddings))
    sizes = {"encoder_width": data.width, "width": embeddings.embedding_dim}
    settings = settings_from(AdapterConfig, sizes | recipe.adapter, "adapter")
    config = S2TConfig(
        adapter=asdict(settings),
        lora=asdict(settings_from(LoraSettings, recipe.lora, "lora")),
        llm=recipe.llm_source,
        system=recipe.system,
        encoder_layer=layer_of(recipe.data.states),
        ctc_classes=len(tokens),
    )
    model = SpeechToText(config, llm)
    model.llm = EmbeddingTable(embeddings)
    model.ctc_tokens.copy_(torch.tensor(tokens))
    stage_model = AlignPass(model, recipe.negatives)

    def collate(rows: list[Example]) -> S2TInputs:
        return S2TInputs(*padded_states(rows, data.width), (), (), [], [row.transcript for row in rows])

    def evaluate() -> dict[str, float]:
        some = some_at_a_time(data.held_out, [row.cost() for row in data.held_out], recipe.data.max_cost)
        return token_errors(stage_model, [collate(rows) for rows in some])

    train, most = data.train, recipe.data.max_cost
    costs = [row.cost() for row in train]
    batches = BucketedBatches(costs, most, lambda n, _: collate([train[i] for i in n]), recipe.seed)
    player = Player("align", align_loss, ("model.adapter.*",), recipe.train.optim)
    return Stage(stage_model, [player], batches, model.save, evaluate, recipe.train.save_every)


class EmbeddingTable(nn.Module):
    """What this stage needs of the LLM: nothing else goes to the training device."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def get_input_embeddings(self) -> nn.Module:
        """Return the table, as an LLM does."""
        return self.table


def token_errors(model: AlignPass, batches: list[S2TInputs]) -> dict[str, float]:
    """Return the token error rate of greedy CTC over the full class list on held-out utterances."""
    with still(model):
        pairs = (pair for found in map(model, batches) for pair in zip(found.best, found.said, strict=True))
        return {"token_error": error_rate(pairs)}
