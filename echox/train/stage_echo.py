"""Stage III: echo training (spec section 4); a frozen T2C and a trained S2T part in, an echo part out.

    question ─► S2T LLM, free-running ─► X' and the states H that predict it ─► denoising adapter ─► echo decoder ─► L_Echo
                                          └─► frozen T2C says X' ─► pseudo units Y' ────────────────────────────────┘

While the LLM does not change, H, X' and Y' are the same in every epoch: they are computed once and kept (`refresh_every`
makes them anew every so many epochs), and the last epoch computes them again as it goes. When the low-rank adapters learn too
(`train_lora`), nothing is kept; they learn from L_S2T alone, since a free-running answer passes no gradient to the states.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from echox.config.load import Settings
from echox.data.batching import BucketedBatches
from echox.data.spoken_questions import QuestionData, SpokenQuestions
from echox.models.echo import EchoDecoder
from echox.models.llm import load_llm, load_tokenizer, token_pieces
from echox.models.lora import LoraSettings, attach_lora, buffer_name, lora_state
from echox.models.ragged import unpad
from echox.models.s2t import Generated, S2TInputs, SpeechToText
from echox.models.spelling import TextLayout
from echox.models.t2c import T2CBatch, TextToCodec
from echox.objectives.echo import EchoBatch, EchoObjective, EchoPass, EchoWeights
from echox.objectives.s2t import AlignPass, AnswerPass, S2TObjective
from echox.text.prompt import Prompt, build_prompt, encode, stop_ids
from echox.text.segmenter import cut_text
from echox.train.loop import Player, Stage, TrainSettings
from echox.train.stage_s2t import add_typed, save_trained, trained_names


class Recipe(Settings):
    """Recipe of stage `echo`."""

    stage: Literal["echo"]
    out: Path
    seed: int = 0
    llm: Path
    s2t: Path
    t2c: Path
    data: QuestionData
    typed: Path | None = None
    typed_probability: float = 0.5  # questions whose answer is drawn from the typed rather than the spoken question
    text: Literal["free", "forced"] = "free"  # X': free-running greedy answer, or argmax under the gold answer
    max_new_tokens: int = 40
    questions: int = 0  # use so many, drawn by the seed; 0: all
    refresh_every: int = 0  # epochs for which H, X', Y' are kept while the LLM is frozen; 0: until the last epoch
    online_last_epoch: bool = True  # the last epoch computes them as it goes
    train_lora: bool = False
    weights: EchoWeights = EchoWeights()
    denoise_width: int = 1536
    tokens: bool = False  # the decoder reads the chosen tokens too, the states through a gate (models/echo.py)
    llm_dtype: Literal["float32", "bfloat16"] = "float32"
    llm_batch: int = 64  # questions that the LLM answers together
    train: TrainSettings


@dataclass
class EchoPair:
    """One voiced segment: the states (N, H), the ids they predict, their layout and the pseudo unit words."""

    states_NH: torch.Tensor
    ids: list[int]
    layout: TextLayout
    words: list[int]


class EchoTargets:
    """Answers the questions, cuts the answers into segments and lets the frozen T2C say them."""

    def __init__(self, s2t: SpeechToText, t2c: TextToCodec, tokenizer: Any, prompt: Prompt, recipe: Recipe) -> None:
        self.s2t, self.t2c, self.tokenizer, self.prompt, self.recipe = s2t, t2c, tokenizer, prompt, recipe
        self.stop = stop_ids(tokenizer, s2t.llm)

    @torch.no_grad()
    def pairs(self, data: SpokenQuestions, items: list[int], typed: list[bool]) -> list[list[EchoPair]]:
        """Return the segments of every item's answer."""
        training = self.s2t.training
        self.s2t.eval()
        positions = self.positions(data, items, typed)
        if self.recipe.text == "free":
            made = self.s2t.generate(
                positions, self.prompt.before, self.prompt.after, self.stop, self.recipe.max_new_tokens
            )
        else:
            made = self.forced(data, items, typed)
        self.s2t.train(training)
        return self.say(made)

    def positions(self, data: SpokenQuestions, items: list[int], typed: list[bool]) -> list[torch.Tensor]:
        """Return the questions as LLM positions, read or heard."""
        spoken = [i for i, t in zip(items, typed, strict=True) if not t]
        heard = iter(())
        if spoken:
            output = self.s2t.hear(*data.frames(spoken))
            heard = iter(unpad(output.kept_BNH, output.mask_BN))
        return [self.s2t.embed(data.transcripts[i]) if t else next(heard) for i, t in zip(items, typed, strict=True)]

    def forced(self, data: SpokenQuestions, items: list[int], typed: list[bool]) -> list[Generated]:
        """Return the argmax tokens and states under the gold answers (without the stop token)."""
        output = self.s2t(speech_batch(data, items, typed, self.prompt))
        made = []
        for hidden_NH in unpad(output.hidden_BLH, output.mask_BL):
            ids = self.s2t.logits(hidden_NH).argmax(-1).tolist()
            kept = [n for n, token in enumerate(ids) if token not in self.stop]
            made.append(Generated([ids[n] for n in kept], [hidden_NH[n] for n in kept], True))
        return made

    def say(self, made: list[Generated]) -> list[list[EchoPair]]:
        """Return the segments of each answer with the frozen T2C's greedy unit words (Y')."""
        segments: list[tuple[int, EchoPair]] = []
        for owner, one in enumerate(made):
            pieces = token_pieces(self.tokenizer, one.ids)
            for first, end in cut_text(pieces):
                layout = self.t2c.layout(pieces[first:end])
                states_NH = torch.stack(one.states[first:end]).float().cpu()
                segments.append((owner, EchoPair(states_NH, one.ids[first:end], layout, [])))
        if segments:
            texts = [self.s2t.embed(pair.ids).float() for _, pair in segments]
            said = self.t2c.generate(texts, [pair.layout for _, pair in segments])
            bos, eos = self.t2c.config.bos_token_id, self.t2c.config.eos_token_id
            for (_, pair), words in zip(segments, said, strict=True):
                pair.words = [bos, *words, eos]
        return [[pair for owner, pair in segments if owner == number] for number in range(len(made))]


def speech_batch(data: SpokenQuestions, items: list[int], typed: list[bool], prompt: Prompt) -> S2TInputs:
    """Return the LLM's own batch: questions with their gold answers."""
    transcripts, answers = [data.transcripts[i] for i in items], [data.answers[i] for i in items]
    return S2TInputs(*data.frames(items), prompt.before, prompt.after, answers, transcripts, typed)


class EchoBatches:
    """Batches of questions become batches of segments; kept ones are reused as the recipe allows."""

    def __init__(self, recipe: Recipe, data: SpokenQuestions, targets: EchoTargets, items: list[int]) -> None:
        self.recipe, self.data, self.targets, self.items = recipe, data, targets, items
        self.kept: dict[tuple[int, bool], list[EchoPair]] = {}
        self.kept_in = 0
        costs = [len(data.transcripts[i]) + 40 for i in items]
        self.batches = BucketedBatches(costs, recipe.data.max_cost, lambda n, rng: n, recipe.seed)
        self.last_epoch = self.batches.epoch_of(recipe.train.steps - 1)

    def __getitem__(self, step: int) -> EchoBatch:
        numbers = self.batches[step]
        items = [self.items[n] for n in numbers]
        typed = [self.is_typed(i) for i in items]
        epoch = self.batches.epoch_of(step)
        online = self.recipe.online_last_epoch and epoch == self.last_epoch and epoch > 0
        online = online or self.recipe.train_lora  # what the LLM says changes with every step
        if self.recipe.refresh_every and epoch - self.kept_in >= self.recipe.refresh_every:
            self.kept, self.kept_in = {}, epoch
        return self.collate(items, typed, keep=not online)

    def is_typed(self, item: int) -> bool:
        """Say whether a question is typed or spoken: the same in every epoch, so that its answer can be kept."""
        if item >= len(self.data.states) - self.data.typed_only:
            return True
        return bool(np.random.default_rng((self.recipe.seed, item)).random() < self.recipe.typed_probability)

    def collate(self, items: list[int], typed: list[bool], keep: bool = True) -> EchoBatch:
        """Return the echo batch of some questions, from what is kept where that is allowed."""
        known = self.kept if keep else {}
        todo = [(i, t) for i, t in zip(items, typed, strict=True) if (i, t) not in known]
        for start in range(0, len(todo), self.recipe.llm_batch):
            some = todo[start : start + self.recipe.llm_batch]
            found = self.targets.pairs(self.data, [i for i, _ in some], [t for _, t in some])
            known |= dict(zip(some, found, strict=True))
        if keep:
            self.kept = known
        pairs = [pair for key in zip(items, typed, strict=True) for pair in known[key]]
        pairs = [pair for pair in pairs if len(pair.words) > 2]
        batch = T2CBatch([p.states_NH for p in pairs], [p.layout for p in pairs], [p.words for p in pairs])
        embeddings = [self.targets.s2t.embed(pair.ids).float() for pair in pairs]
        speech = None
        if self.recipe.train_lora:
            speech = speech_batch(self.data, items, typed, self.targets.prompt)
        return EchoBatch(batch, embeddings, speech)


def build(recipe: Recipe) -> Stage:
    """Return the stage; encoder states are read once into memory."""
    torch.manual_seed(recipe.seed)
    tokenizer, llm = load_tokenizer(recipe.llm), load_llm(recipe.llm, getattr(torch, recipe.llm_dtype))
    s2t, t2c = SpeechToText.load(recipe.s2t, llm), TextToCodec.load(recipe.t2c).eval().requires_grad_(False)
    settings = LoraSettings(**(s2t.config.lora or {}))
    if recipe.train_lora:
        attach_lora(llm, settings)
        start_lora(llm, s2t)
    else:
        s2t.lora.merge_into(llm)
        s2t.eval()
    prompt = build_prompt(tokenizer, s2t.config.system)
    data = SpokenQuestions(recipe.data, lambda text: encode(tokenizer, text), tokenizer.eos_token_id)
    first_held_out = len(data.states) - recipe.data.held_out
    add_typed(data, recipe.typed, lambda text: encode(tokenizer, text), tokenizer.eos_token_id)
    spoken = len(data.states) - data.typed_only
    items = [i for i in range(len(data.states)) if not first_held_out <= i < spoken]
    if recipe.questions:
        items = np.random.default_rng(recipe.seed).permutation(items)[: recipe.questions].tolist()
    batches = EchoBatches(recipe, data, EchoTargets(s2t, t2c, tokenizer, prompt, recipe), items)
    echo = EchoDecoder.from_t2c(t2c, recipe.denoise_width, recipe.tokens)
    model = EchoPass(echo, AnswerPass(s2t, AlignPass(s2t)) if recipe.train_lora else None)
    trains: tuple[str, ...] = ("echo.*",)
    if recipe.train_lora:
        trains += trained_names(model, hearing=True, prefix="s2t.model.")
    measured = EchoPass(echo)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        echo.eval()
        rows = list(range(first_held_out, spoken))[:64]
        batch = batches.collate(rows, [False] * len(rows), keep=not recipe.train_lora)
        numbers = EchoObjective(recipe.weights)(measured(batch)).numbers()
        echo.train()
        return numbers

    def save(folder: Path) -> None:
        echo.save(folder)
        if recipe.train_lora:
            save_trained(s2t, llm, settings, recipe.llm, folder / "s2t")

    objective = EchoObjective(recipe.weights, S2TObjective() if recipe.train_lora else None)
    player = Player("echo", objective, trains, recipe.train.optim)
    return Stage(model, [player], batches, save, evaluate, recipe.train.save_every, (s2t, t2c))


def start_lora(llm: nn.Module, s2t: SpeechToText) -> None:
    """Copy a part's trained low-rank matrices into the trainable ones."""
    own = dict(llm.named_parameters())
    for name in lora_state(llm):
        linear, _, part = name.rpartition(".")
        stored = s2t.lora.get_buffer(buffer_name(linear, part))
        own[f"{linear}.lora_{part}.default.weight"].data.copy_(stored)
