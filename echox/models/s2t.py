"""Speech to text: adapter plus causal LM with low-rank adapters (spec section 2); it knows no encoder and no speech output.

    encoder frames --adapter--> positions --.
    prompt ids ----LLM embeddings----------- + --> [before | heard | after | answer] --LLM--> states, logits

The LLM is handed in, never stored: the part on disk holds the adapter, the low-rank matrices and the list of CTC tokens.
A typed question takes the same path with its own tokens between `before` and `after`.

Legend: B batch, C CTC classes, D encoder width, H LLM width, L answer tokens, N positions, T frames, V LLM vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from os.path import commonprefix
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.models.adapter import AdapterConfig, AdapterOutput, SpeechAdapter
from echox.models.bounds import (
    Classes,
    Factor,
    Flag,
    Layers,
    Positions,
    Share,
    Small,
    Text,
    TokenId,
    Tokens,
    check_values,
)
from echox.models.decoding import Generated, IsOver, decode, gathered
from echox.models.io import CONFIG, Part, load_config, load_module, save_part, settings_from
from echox.models.lora import LoraSettings, LoraWeights
from echox.models.ragged import pad_right, unpad
from echox.models.sampling import Sampling
from echox.models.slots import Row
from echox.text.echox_dialect import SEGMENT_PREFIX_ID, EchoXDialect, EchoXTokens
from echox.text.prompt import ChatDialect, Dialect, Prompt

LLM_TENSORS = ("llm.",)


class S2TConfig(PreTrainedConfig):
    """Settings of a speech-to-text part."""

    model_type = "echox_s2t"
    adapter: dict[str, Any] | None = None  # AdapterConfig
    lora: dict[str, Any] | None = None  # LoraSettings
    llm: dict[str, Any] | None = None  # name, file and sha256 of the LLM these numbers were trained on
    dialect: Literal["chat", "echox"] = "chat"  # the tokenizer's chat template; echox: spec section 9
    segment_prefix: TokenId = SEGMENT_PREFIX_ID  # of the dialect echox
    system: Text = ""  # system text of every prompt
    hears: Flag = True  # False: no CTC adapter, since a listener hears for it (generate/ears.py)
    encoder_layer: Layers | None = None  # whose states it learnt from; none: not known
    ctc_classes: Classes = 0  # LLM tokens that CTC tells apart; the blank comes on top
    enough_tokens: Positions | None = 48  # an answer of so many tokens ends with its sentence; none: the LLM ends it
    max_new_tokens: Tokens = 80
    no_repeat_ngram: Small = 4  # no run of so many answer tokens occurs twice (small models loop); 0: no such rule
    temperature: Factor = 0.0  # of answer tokens; 0: greedy
    top_p: Share = 1.0

    def dialect_of(self, tokenizer: Any) -> Dialect:
        """Return how prompts are written with a tokenizer; ModelError when it cannot."""
        if self.dialect == "chat":
            return ChatDialect(tokenizer, self.system)
        return EchoXDialect(EchoXTokens.of(tokenizer, self.segment_prefix), self.system)


PLAIN = {"hears": False, "lora": asdict(LoraSettings(rank=0))}  # settings of a part that changes and hears nothing


@dataclass
class S2TInputs:
    """A training batch: ragged runs of ids and encoder frames, one a row."""

    frames_BTD: torch.Tensor
    lengths_B: torch.Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]
    answers: list[list[int]]  # each with its stop token
    transcripts: list[list[int]] | None = None
    typed: list[bool] | None = None  # rows whose question is read from its transcript, not heard
    unseen: frozenset[int] = frozenset()  # tokens of `before` and `after` that are not attended to


@dataclass
class S2TOutput:
    """States that predict the answer tokens, right-padded, and what the adapter heard."""

    hidden_BLH: torch.Tensor
    answers_BL: torch.Tensor
    mask_BL: torch.Tensor
    heard: AdapterOutput


class SpeechToText(Part[S2TConfig]):
    """Adapter and LLM; `llm` is any Hugging Face causal LM, shared and not saved."""

    llm: Any
    ctc_tokens: torch.Tensor

    def __init__(self, config: S2TConfig, llm: Any) -> None:
        super().__init__(config)
        self.lora = LoraWeights.for_llm(settings_from(LoraSettings, config.lora, "s2t.lora"), llm)
        self.llm = llm
        if not config.hears:
            return
        self.adapter = SpeechAdapter(settings_from(AdapterConfig, config.adapter, "s2t.adapter"))
        self.register_buffer("ctc_tokens", torch.zeros(config.ctc_classes, dtype=torch.int32))
        width = llm.get_input_embeddings().embedding_dim
        if self.adapter.config.width != width:
            raise ModelError(f"the adapter is {self.adapter.config.width} wide and the LLM {width}: they do not fit.")

    @classmethod
    def plain(cls, llm: Any) -> "SpeechToText":
        """Return a part that leaves the LLM as it is and hears nothing itself."""
        return cls(S2TConfig(**PLAIN), llm)

    @classmethod
    def load(cls, folder: str | Path, llm: Any) -> "SpeechToText":
        """Load a part saved by `save`; ModelError names what does not fit."""
        config, path = load_config(folder, S2TConfig), Path(folder) / CONFIG
        check_values(AdapterConfig, config.adapter or {}, f"{path}, adapter,")
        check_values(LoraSettings, config.lora or {}, f"{path}, lora,")
        model = load_module(folder, lambda: cls(config, llm), absent=LLM_TENSORS)
        if not config.hears:
            return model
        tokens, vocabulary = model.ctc_tokens, len(model.embeddings_VH)
        if not len(tokens):
            raise ModelError(f"{path} tells no tokens apart (ctc_classes is 0): fetch the model again.")
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
            raise ModelError(f"{path} hears tokens that the LLM's {vocabulary} do not hold: they do not fit.")
        return model

    def save(self, folder: str | Path) -> None:
        """Write everything but the LLM to `folder`."""
        save_part(folder, self, absent=LLM_TENSORS)

    @property
    def embeddings_VH(self) -> torch.Tensor:
        """The LLM's token embeddings, shape (V, H)."""
        return self.llm.get_input_embeddings().weight

    def embed(self, ids: list[int] | tuple[int, ...]) -> torch.Tensor:
        """Return the embeddings of token ids, shape (N, H)."""
        return self.embed_tokens(torch.tensor(ids, dtype=torch.long))

    def hear(self, frames_BTD: torch.Tensor, lengths_B: torch.Tensor) -> AdapterOutput:
        """Return what the adapter makes of encoder frames at 50 a second."""
        rows_CH = self.adapter.ctc_rows(self.embeddings_VH, self.ctc_tokens.long()).detach()
        return self.adapter(frames_BTD, lengths_B, rows_CH)

    def heard_ids(self, heard: AdapterOutput) -> list[list[int]]:
        """Return the LLM token that each kept position sounds most like, blanks left out."""
        tokens = self.ctc_tokens.tolist()
        return [[tokens[c] for c in classes if c < len(tokens)] for classes in heard.classes]

    def forward(self, inputs: S2TInputs) -> S2TOutput:
        """Return the states that predict each answer token, teacher-forced on the given answers."""
        heard = self.hear(inputs.frames_BTD, inputs.lengths_B)
        asked = unpad(heard.kept_BNH, heard.mask_BN)
        for row, typed in enumerate(inputs.typed or ()):
            if typed and inputs.transcripts is not None:
                asked[row] = self.embed(inputs.transcripts[row])
        prompt = Prompt((inputs.before, inputs.after), (None,), inputs.unseen)
        prompts = [self.row(prompt, [positions_NH]) for positions_NH in asked]
        hidden_BLH, mask_BL = pad_right(self.states_under(prompts, inputs.answers))
        answers_BL, _ = pad_right([torch.tensor(answer, device=hidden_BLH.device) for answer in inputs.answers])
        return S2TOutput(hidden_BLH, answers_BL, mask_BL, heard)

    @property
    def body(self) -> Any:
        """The LLM without its head."""
        return self.llm.get_decoder()

    def embed_tokens(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Return the LLM's embeddings (B, H) of tokens (B,)."""
        return self.embeddings_VH[tokens_B.to(self.embeddings_VH.device)]

    def token_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the LLM's scores (..., V) of the next token, from states (..., H)."""
        return self.llm.get_output_embeddings()(hidden)

    def row(self, prompt: Prompt, heard: Sequence[torch.Tensor]) -> Row:
        """Return what the LLM reads of a prompt whose sounds were heard as positions (N, H) each."""
        pieces, seen = [], list[bool]()
        for positions_NH, run in zip((None, *heard), prompt.runs, strict=True):
            if positions_NH is not None:
                pieces.append(positions_NH.to(self.embeddings_VH.dtype))
                seen += [True] * len(positions_NH)
            pieces.append(self.embed(run))
            seen += [token not in prompt.unseen for token in run]
        return Row(torch.cat(pieces), seen_N=torch.tensor(seen) if prompt.unseen else None)

    @property
    def sampling(self) -> Sampling:
        """How this part chooses answer tokens unless it is told otherwise."""
        return Sampling(self.config.temperature, self.config.top_p, self.config.no_repeat_ngram)

    def states_under(self, prompts: Sequence[Row], answers: Sequence[list[int]]) -> list[torch.Tensor]:
        """Return the states (N, H) that predict each token of answers given after their prompts, in one pass."""
        read = [torch.cat([p.inputs_NW, self.embed(a[:-1])]) for p, a in zip(prompts, answers, strict=True)]
        embeds_BNH, mask_BN = pad_right(read)
        seen_BN = mask_BN.clone()
        for row, prompt in enumerate(prompts):
            if prompt.seen_N is not None:
                seen_BN[row, : len(prompt.seen_N)] = prompt.seen_N.to(seen_BN.device)
        output = self.body(inputs_embeds=embeds_BNH, attention_mask=seen_BN.long(), use_cache=False)
        rows = unpad(output.last_hidden_state, mask_BN)
        return [row_NH[len(row_NH) - len(answer) :] for row_NH, answer in zip(rows, answers, strict=True)]

    @torch.inference_mode()
    def log_likelihoods(self, before: list[int], texts: Sequence[list[int]]) -> list[float]:
        """Return log-probabilities (nats) of texts of token ids behind the tokens `before`, one at least, to be compared.

        All are less by that of the tokens that all texts begin with, so that one text alone has 0.
        """
        shared = len(commonprefix(texts))
        texts, stem = [text[shared:] for text in texts], Row(self.embed([*before, *texts[0][:shared]]))
        states = self.states_under([stem] * len(texts), texts)
        found_NV = self.token_logits(torch.cat(states)).float().log_softmax(-1)
        said_N = torch.tensor([token for text in texts for token in text], dtype=torch.long, device=found_NV.device)
        each = found_NV.gather(1, said_N[:, None])[:, 0].split([len(text) for text in texts])
        return [float(of_one.sum()) for of_one in each]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Row], stops: Collection[int], is_over: IsOver, sampling: Sampling | None = None
    ) -> list[Generated]:
        """Return the answers to prompts in LLM width, without their stop tokens; each ends at the latest when it `is_over`."""
        steps = decode(self, prompts, stops, lambda _, said: is_over(said), sampling or self.sampling)
        return gathered(steps, len(prompts), states=True)
