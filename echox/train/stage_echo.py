"""Stage III: echo training (spec section 4); a frozen T2C and a trained S2T part in, an echo part out.

    question ─► S2T LLM, free-running ─► X' and the states H that predict it ─► denoising adapter ─► echo decoder ─► L_Echo
                                          └─► frozen T2C says X' ─► pseudo units Y' ────────────────────────────────┘

While the LLM does not change, H, X' and Y' are the same in every epoch: they are computed once and kept. When the low-rank
adapters learn too (`train_lora`), nothing is kept; they learn from L_S2T, since a free-running answer passes no gradient to its
states. With `echo_moves_llm` X' passes the LLM once more, as given: its states carry L_Echo and L_Denoising to the adapters (spec
section 4.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import nn

from echox.config.load import Settings, Share, known
from echox.data.batching import BucketedBatches, groups, some_at_a_time
from echox.data.example import Example, QuestionData, padded_states, read_examples
from echox.data.states import layer_of
from echox.errors import ConfigError
from echox.models.decoding import Generated, at_most
from echox.models.echo import EchoDecoder
from echox.models.llm import Place, load_llm, load_tokenizer, settle_llm, text_of_pieces, token_pieces
from echox.models.lora import LoraSettings, attach_lora, buffer_name, lora_state
from echox.models.ragged import unpad
from echox.models.s2t import SpeechToText
from echox.models.slots import Row
from echox.models.spelling import TextLayout
from echox.models.t2c import T2CBatch, TextToCodec
from echox.objectives.echo import EchoBatch, EchoObjective, EchoPass, EchoWeights
from echox.objectives.s2t import AlignPass, AnswerPass, S2TObjective
from echox.text.echox_dialect import EchoXDialect
from echox.text.prompt import Dialect, encode, question_prompt, stop_ids
from echox.text.segmenter import PhraseSegmenter, PhraseSettings, cut_text
from echox.train.evaluate import mean_loss, still
from echox.train.loop import Player, Stage, TrainingRecipe
from echox.train.stage_s2t import asked, save_trained, trained_names
from echox.train.stage_t2c import spoken_units
from echox.units.extractor import check_belong
from echox.units.tokenizer import UnitTokenizer


class VoicedData(Settings):
    """The voice itself saying segments of answers: corpora, their frame-level units, and the unit language of T2C."""

    corpora: list[Path]
    frames: list[Path]  # one folder a corpus
    units: Path


class Recipe(TrainingRecipe):
    """Recipe of stage `echo`."""

    stage: Literal["echo"]
    llm: Path
    s2t: Path
    t2c: Path
    data: QuestionData
    typed: Path | None = None
    typed_probability: Share = 0.5  # questions whose answer is drawn from the typed rather than the spoken question
    text: Literal["free", "forced", "given"] = "free"  # X': greedy, argmax under the gold answer, or that answer itself
    voiced: VoicedData | None = None  # Y' of a segment that is said in it are its units; T2C says the others
    max_new_tokens: PositiveInt = 40
    phrases: Annotated[dict[str, int], known(PhraseSettings)] = {}  # where phrases end a segment, as in stage pack
    max_unit_words: NonNegativeInt = 0  # of a segment's pseudo label; 0: T2C's own limit
    questions: NonNegativeInt = 0  # use so many, drawn by the seed; 0: all
    train_lora: bool = False  # the low-rank adapters and the speech adapter learn too, from L_S2T
    echo_moves_llm: bool = False  # and from L_Echo and L_Denoising, by a second pass over X'
    ctc_weight: NonNegativeFloat = 0.3  # of CTC in L_S2T
    negatives: NonNegativeInt = 0  # CTC classes drawn a step; 0: all
    weights: EchoWeights = EchoWeights()
    denoise_width: PositiveInt = 1536
    tokens: bool = False  # the decoder reads the chosen tokens too, the states through a gate (models/echo.py)
    states: bool = True  # False: it reads no states, a control
    letters: bool = True  # False: the letters of a T2C that spells are taken from the echo decoder
    keep_decoder: bool = False  # the decoder stays T2C's: the denoising adapter and its gate alone learn
    llm_dtype: Literal["float32", "bfloat16"] = "float32"
    llm_batch: PositiveInt = 64  # questions that the LLM answers together
    measured: PositiveInt = 64  # held-out questions that are measured


@dataclass
class EchoPair:
    """One voiced segment: states (N, H), the ids they predict and their texts, layout, pseudo unit words, span of the answer.

    `past` are the unit words before it that T2C read.
    """

    states_NH: torch.Tensor
    ids: list[int]
    pieces: list[str]
    layout: TextLayout
    words: list[int]
    span: tuple[int, int]
    past: list[int] = field(default_factory=list)


class EchoTargets:
    """Answers the questions, cuts the answers into segments and lets the frozen T2C say them."""

    def __init__(self, s2t: SpeechToText, t2c: TextToCodec, echo: EchoDecoder, tokenizer: Any, recipe: Recipe) -> None:
        self.s2t, self.t2c, self.echo, self.tokenizer, self.recipe = s2t, t2c, echo, tokenizer, recipe
        self.prompt, self.stop = question_prompt(s2t.config.dialect_of(tokenizer)), stop_ids(tokenizer, s2t.llm)
        self.width = s2t.adapter.config.encoder_width if s2t.config.hears else 0
        self.marks = {t2c.config.bos_token_id, t2c.config.eos_token_id}
        self.voiced = {} if recipe.voiced is None else voiced_words(recipe.voiced, t2c)

    def embed(self, ids: list[int]) -> torch.Tensor:
        """Return T2C's embeddings of text tokens, (N, H) in float32: the targets of denoised states."""
        return self.t2c.embed_text(ids, self.s2t.embeddings_VH).float()

    def pairs(self, rows: Sequence[Example]) -> list[list[EchoPair]]:
        """Return the segments of every question's answer; rows without states are typed."""
        with still(self.s2t):
            prompts = [self.s2t.row(self.prompt, [positions_NH]) for positions_NH in self.positions(rows)]
            if self.recipe.text == "free":
                return self.say(self.s2t.generate(prompts, self.stop, at_most(self.recipe.max_new_tokens)))
            return self.say(self.forced(prompts, [row.answer for row in rows]))

    def positions(self, rows: Sequence[Example]) -> list[torch.Tensor]:
        """Return the questions as LLM positions, read or heard."""
        spoken = [row for row in rows if row.states_TD is not None]
        heard = iter(())
        if spoken:
            output = self.s2t.hear(*padded_states(spoken, self.width))
            heard = iter(unpad(output.kept_BNH, output.mask_BN))
        return [self.s2t.embed(row.transcript) if row.states_TD is None else next(heard) for row in rows]

    def forced(self, prompts: Sequence[Row], answers: Sequence[list[int]]) -> list[Generated]:
        """Return the states under the gold answers and their argmax tokens, or the answers themselves; without the stop token."""
        made = []
        for hidden_NH, answer in zip(self.s2t.states_under(prompts, answers), answers, strict=True):
            ids = answer if self.recipe.text == "given" else self.s2t.token_logits(hidden_NH).argmax(-1).tolist()
            kept = [n for n, token in enumerate(ids) if token not in self.stop]
            made.append(Generated([ids[n] for n in kept], [hidden_NH[n] for n in kept]))
        return made

    def read(self, pair: EchoPair) -> tuple[list[int], list[str]]:
        """Return the tokens that T2C reads of a segment and their texts: its own, or those of the text as it is said."""
        text = text_of_pieces(pair.pieces)
        said = self.t2c.said(text)
        if said == text:
            return pair.ids, pair.pieces
        ids = encode(self.tokenizer, said)
        return ids, token_pieces(self.tokenizer, ids)

    def say(self, made: list[Generated]) -> list[list[EchoPair]]:
        """Return the segments of each answer with unit words (Y'): the voice's, or greedy ones of the frozen T2C.

        Unit words cut at the limit have no EOS.
        """
        answers: list[list[EchoPair]] = []
        for one in made:
            pieces = token_pieces(self.tokenizer, one.ids)
            answers.append([])
            for first, end in cut_text(pieces, PhraseSegmenter(**self.recipe.phrases)):
                texts, ids, text = pieces[first:end], one.ids[first:end], text_of_pieces(pieces[first:end])
                states_NH = torch.stack(one.states[first:end]).float().cpu()
                words = self.voiced.get(self.t2c.said(text).strip()) or self.voiced.get(text.strip(), [])
                answers[-1].append(EchoPair(states_NH, ids, texts, self.echo.layout(texts), words, (first, end)))
        left, past = [iter(pairs) for pairs in answers], [list[int]() for _ in answers]
        most = 1 if self.t2c.config.past_words else None  # of an answer at a time: the next goes on from it
        while turn := [(n, pair) for n, pairs in enumerate(left) for pair in islice(pairs, most)]:
            for n, pair in turn:
                pair.past = past[n]
            self.say_unsaid([pair for _, pair in turn if not pair.words])
            for n, pair in turn:
                words = [word for word in pair.words if word not in self.marks]
                past[n] = self.t2c.past_of([*past[n], *words], text_of_pieces(pair.pieces))
        return answers

    def say_unsaid(self, pairs: list[EchoPair]) -> None:
        """Fill in the unit words of segments, as T2C says them after their past."""
        tokens, most = [self.read(pair) for pair in pairs], self.recipe.max_unit_words or None
        read, layouts = [self.embed(ids) for ids, _ in tokens], [self.t2c.layout(pieces) for _, pieces in tokens]
        made = self.t2c.generate(read, layouts, most, past=[pair.past for pair in pairs]) if pairs else []
        for pair, layout, said in zip(pairs, layouts, made, strict=True):
            over = self.t2c.is_over(said.ids, most or self.t2c.limit(layout))
            pair.words = self.t2c.framed(said.ids, whole=not over)


def voiced_words(data: VoicedData, t2c: TextToCodec) -> dict[str, list[int]]:
    """Return the unit words in which the voice says each text, framed; ConfigError when `t2c` writes others."""
    tokenizer = UnitTokenizer.load(data.units)
    if tokenizer.vocab_size != t2c.config.unit_vocab_size:
        raise ConfigError(f"T2C was trained with another unit language than {data.units}: give that one.")
    check_belong(data.units, tokenizer.units, data.frames)
    texts, sequences = zip(*spoken_units(data.corpora, data.frames), strict=True)
    words = tokenizer.encode_batch(list(sequences))
    return {text.strip(): t2c.framed(row.tolist()) for text, row in zip(texts, words, strict=True)}


class EchoBatches:
    """Batches of questions become batches of segments, which are kept while the LLM is frozen.

    A question is answered in its batch of the first epoch, so that a resumed run gets the same answers.
    """

    def __init__(self, recipe: Recipe, rows: list[Example], targets: EchoTargets) -> None:
        self.recipe, self.rows, self.targets = recipe, rows, targets
        self.kept: dict[int, list[EchoPair]] = {}
        costs = [self.cost(row) for row in rows]
        self.batches = BucketedBatches(costs, recipe.data.max_cost, lambda n, rng: n, recipe.seed)
        self.company = {item: numbers for numbers in self.batches.epoch(0) for item in numbers}

    def cost(self, row: Example) -> int:
        """Return what a question counts in a batch: the LLM's tokens of prompt and question, and of the longest answer."""
        prompt = self.targets.prompt
        return len(prompt.before) + len(row.transcript) + len(prompt.after) + self.recipe.max_new_tokens

    def __getitem__(self, number: int) -> EchoBatch | None:
        items = self.batches[number]
        if self.recipe.train_lora:  # what the LLM says changes with every step
            rows = [self.rows[item] for item in items]
            return self.collate(rows, self.answered(rows))
        for item in items:
            if item not in self.kept:
                company = self.company[item]
                self.kept |= dict(zip(company, self.answered([self.rows[i] for i in company]), strict=True))
        return self.collate([self.rows[item] for item in items], [self.kept[item] for item in items])

    def answered(self, rows: list[Example]) -> list[list[EchoPair]]:
        """Return the segments of the answers, `llm_batch` questions at a time."""
        return [pairs for some in groups(rows, self.recipe.llm_batch) for pairs in self.targets.pairs(some)]

    def collate(self, rows: list[Example], answers: list[list[EchoPair]]) -> EchoBatch | None:
        """Return the echo batch of some questions and their answers; none when nothing is said in them."""
        found = [(row, pair) for row, pairs in enumerate(answers) for pair in pairs if len(pair.words) > 2]
        if not found:
            return None
        pairs, recipe, s2t = [pair for _, pair in found], self.recipe, self.targets.s2t
        prompt, width = self.targets.prompt, self.targets.width
        states, layouts = [p.states_NH for p in pairs], [p.layout for p in pairs]
        batch = T2CBatch(states, layouts, [p.words for p in pairs], [p.past for p in pairs])
        embeddings = [self.targets.embed(pair.ids) for pair in pairs]
        head_VH = s2t.llm.get_output_embeddings().weight
        goals = [head_VH[torch.tensor(pair.ids, device=head_VH.device)].float() for pair in pairs]
        speech = asked(prompt, rows, width, [row.answer for row in rows]) if recipe.train_lora else None
        again = None
        if recipe.echo_moves_llm:
            said = [[token for pair in pairs for token in pair.ids] for pairs in answers]
            again = asked(prompt, rows, width, [[*ids, 0] for ids in said])  # the last token is only predicted
        return EchoBatch(batch, embeddings, goals, speech, again, [(row, *pair.span) for row, pair in found])


def check_settings(recipe: Recipe) -> None:
    """Raise ConfigError for settings that would train nothing, or that contradict each other."""
    weights = recipe.weights
    if recipe.echo_moves_llm and not recipe.train_lora:
        raise ConfigError("echo_moves_llm moves the low-rank adapters of the LLM: set train_lora too.")
    if recipe.train_lora and recipe.train.parallel == "shard":
        raise ConfigError("train_lora generates answers, which a sharded LLM cannot: set train.parallel to replicate.")
    if recipe.train_lora and not recipe.echo_moves_llm and weights.s2t_rule == "sum" and not weights.s2t:
        raise ConfigError("train_lora trains nothing where weights.s2t is 0: raise it, or set echo_moves_llm.")
    if recipe.data.corpora and recipe.data.answers is None and (recipe.train_lora or recipe.text != "free"):
        raise ConfigError(
            "text other than free, and train_lora, need the gold answers: name the JSONL in data.answers."
        )
    if recipe.keep_decoder and not (recipe.states and recipe.letters):
        raise ConfigError("keep_decoder trains what states pass, around T2C as it is: leave states and letters true.")


def around_states(dialect: Dialect, t2c: TextToCodec) -> dict[str, Any]:
    """Return the ids a released T2C reads around states, other than around text (spec section 6.2); {} for any other T2C."""
    if not isinstance(dialect, EchoXDialect) or not t2c.config.text_vocab_size:
        return {}
    before, after = dialect.tokens.around_states
    return {"before": before, "after": after, "unseen": ()}


def build(recipe: Recipe) -> Stage:
    """Return the stage; encoder states stay on disk."""
    torch.manual_seed(recipe.seed)
    check_settings(recipe)
    place = Place(dtype=getattr(torch, recipe.llm_dtype), packed=recipe.text == "free" and not recipe.train_lora)
    tokenizer, llm = load_tokenizer(recipe.llm), load_llm(recipe.llm, place)
    s2t, t2c = SpeechToText.load(recipe.s2t, llm), TextToCodec.load(recipe.t2c).eval().requires_grad_(False)
    if not s2t.config.hears and (recipe.data.corpora or recipe.train_lora):
        raise ConfigError(f"{recipe.s2t} has no adapter: give `typed` alone, without corpora or train_lora.")
    layer_of(recipe.data.states, s2t.config.encoder_layer, recipe.s2t)
    settings = LoraSettings(**(s2t.config.lora or {}))
    if recipe.train_lora:
        attach_lora(llm, settings)
        start_lora(llm, s2t)
    else:
        s2t.lora.merge_into(llm)
        settle_llm(llm, place)
        s2t.eval()
    data = read_examples(recipe.data, lambda text: encode(tokenizer, text), tokenizer.eos_token_id, recipe.typed)
    dialect = s2t.config.dialect_of(tokenizer)
    data = data.opened(dialect.opening)
    rows = [as_asked(recipe, item, row) for item, row in enumerate(data.train)]
    if recipe.questions:
        chosen = np.random.default_rng(recipe.seed).permutation(len(rows))[: recipe.questions].tolist()
        rows = [rows[i] for i in chosen]
    echo = EchoDecoder.from_t2c(
        t2c,
        **around_states(dialect, t2c),
        denoise_width=recipe.denoise_width,
        tokens=recipe.tokens,
        states=recipe.states,
        spelling=recipe.letters and t2c.config.spelling,
        shares_decoder=recipe.keep_decoder,
    )
    batches = EchoBatches(recipe, rows, EchoTargets(s2t, t2c, echo, tokenizer, recipe))
    model = EchoPass(echo)
    trains: tuple[str, ...] = ("echo.denoise.*", "echo.gate") if recipe.keep_decoder else ("echo.*",)
    if recipe.train_lora:
        model = EchoPass(echo, AnswerPass(s2t, AlignPass(s2t, recipe.negatives) if recipe.ctc_weight else None))
        trains += trained_names(model, hearing=True, prefix="s2t.model.")
    objective = EchoObjective(recipe.weights)

    held_out = data.held_out[: recipe.measured]
    measured = some_at_a_time(held_out, [batches.cost(row) for row in held_out], recipe.data.max_cost)
    kept: list[list[list[EchoPair]]] = []

    def evaluate() -> dict[str, float]:
        if recipe.train_lora or not kept:
            kept[:] = [batches.answered(rows) for rows in measured]
        made = (batches.collate(rows, answers) for rows, answers in zip(measured, kept, strict=True))
        return mean_loss(model, (batch for batch in made if batch is not None), objective)

    def save(folder: Path) -> None:
        echo.save(folder)
        if recipe.train_lora:
            save_trained(s2t, llm, settings, recipe.llm, folder / "s2t")

    loss = EchoObjective(recipe.weights, S2TObjective(recipe.ctc_weight) if recipe.train_lora else None)
    player = Player("echo", loss, trains, recipe.train.optim)
    return Stage(model, [player], batches, save, evaluate, recipe.train.save_every, (s2t, t2c))


def as_asked(recipe: Recipe, item: int, row: Example) -> Example:
    """Return a question without its states when it is typed: the same in every epoch, so that its answer can be kept."""
    typed = np.random.default_rng((recipe.seed, item)).random() < recipe.typed_probability
    return replace(row, states_TD=None) if typed else row


def start_lora(llm: nn.Module, s2t: SpeechToText) -> None:
    """Copy a part's trained low-rank matrices into the trainable ones."""
    own = dict(llm.named_parameters())
    for name in lora_state(llm):
        linear, _, part = name.rpartition(".")
        stored = s2t.lora.get_buffer(buffer_name(linear, part))
        own[f"{linear}.lora_{part}.default.weight"].data.copy_(stored)
