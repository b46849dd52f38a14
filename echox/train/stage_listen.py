"""Hearing by attention: Whisper's decoder learns short windows and many sentences; speech with its text in, a listener out."""

from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt

from echox.config.load import Rate, Share
from echox.data.manifest import texts_of
from echox.generate.ears import TOKENIZER, fill_window, special_ids
from echox.models.listener import Listener
from echox.models.llm import load_text_tokenizer
from echox.models.ragged import pad_right
from echox.objectives.listener import Dictation, ListenerBatch, listener_loss
from echox.prepare.encode import load_whisper
from echox.prepare.joined_speech import JoinedSettings, JoinedSpeech, Window
from echox.text.truecase import Truecaser
from echox.train.checkpoint import blend
from echox.train.evaluate import mean_loss
from echox.train.loop import Player, Stage, TrainingRecipe
from echox.train.stage import matches

HELD_OUT = 1_000_000  # the first step number of windows that are only measured


class Recipe(TrainingRecipe):
    """Recipe of stage `listen`."""

    stage: Literal["listen"]
    whisper: Path  # a whole Whisper folder: its encoder stays as it is, its decoder is tuned
    encoder_layer: PositiveInt
    start: Path | None = None  # a listener to go on from instead of Whisper's decoder
    data: JoinedSettings
    cased: list[Path] = []  # JSONL where usual capitals are learnt
    keep_whisper: Share = 0.0  # share of Whisper in what is written (train/checkpoint.py)
    train_embeddings: bool = False  # the token table, which is also the head
    smoothing: Rate = 0.0
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # of the frozen encoder
    held_out_batches: NonNegativeInt = 8


class ListenerBatches:
    """Turns windows into encoder states and text tokens."""

    def __init__(self, recipe: Recipe, listener: Listener) -> None:
        self.encoder, self.layer = load_whisper(recipe.whisper, recipe.precision), recipe.encoder_layer
        self.encoder.check_layer(self.layer, recipe.whisper)
        texts = [text for path in recipe.cased for text in texts_of(path) if text != text.lower()]
        self.speech = JoinedSpeech(recipe.data, Truecaser(texts), recipe.seed)
        self.tokenizer = load_text_tokenizer(recipe.whisper / TOKENIZER)
        self.begin, self.end = special_ids(self.tokenizer, listener.config)
        self.most = listener.config.max_positions

    def __getitem__(self, step: int) -> ListenerBatch:
        return self.batch(self.speech[step])

    def batch(self, windows: list[Window]) -> ListenerBatch:
        """Return what the listener reads and writes for some windows."""
        found = self.encoder.encode([fill_window(window.wave_S) for window in windows], (self.layer,))
        states_BTW, mask_BT = pad_right([row[self.layer].float() for row in found])
        texts = [f" {window.text}" if window.text else "" for window in windows]
        ids = [self.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        tokens = [[*self.begin, *row, self.end][: self.most] for row in ids]
        return ListenerBatch(states_BTW, mask_BT.sum(1), tokens, len(self.begin))


def build(recipe: Recipe) -> Stage:
    """Return the stage; speech is read as it is needed."""
    torch.manual_seed(recipe.seed)
    listener = Listener.from_whisper(recipe.whisper) if recipe.start is None else Listener.load(recipe.start).float()
    batches = ListenerBatches(recipe, listener)
    held_out = [batches[HELD_OUT + number] for number in range(recipe.held_out_batches)]
    model = Dictation(listener)

    def evaluate() -> dict[str, float]:
        return mean_loss(model, held_out, listener_loss)

    def save(folder: Path) -> None:
        share = recipe.keep_whisper
        (blend(Listener.from_whisper(recipe.whisper), listener, share) if share else listener).save(folder)
        (folder / TOKENIZER).write_bytes((recipe.whisper / TOKENIZER).read_bytes())

    frozen = () if recipe.train_embeddings else ("listener.embed_tokens.*",)
    trains = tuple(name for name, _ in model.named_parameters() if not matches(name, frozen))
    player = Player("listener", partial(listener_loss, smoothing=recipe.smoothing), trains, recipe.train.optim)
    return Stage(model, [player], batches, save, evaluate, recipe.train.save_every)
