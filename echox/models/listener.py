"""A listener: Whisper's decoder on windows of the utterance's own length; encoder states in, the words heard out.

    encoder states --cross-attention--> decoder --> text tokens, greedy or several texts --> (generate/ears.py) --> LLM tokens

Whisper was only ever trained on 30-second windows: on a shorter one its decoder does not know where to stop. After some
minutes of training on short windows it does (train/stage_listen.py), at a fifth of the cost. Names of tensors are Hugging Face's,
so a Whisper folder loads as it is. Queries of padded frames are masked, so a row is heard alone as in any batch.

Decoding stays out of decoding.py's loop: slots there hold what rows have written, and here a row owns what it hears; slots with
both would take more lines than this loop, and batches that shrink have other last bits.

Legend: B batch, D head width, H heads, N text tokens, T frames, V vocabulary, W width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import nn
from transformers import PreTrainedConfig

from echox.errors import ModelError
from echox.models.bounds import Classes, Factor, Few, Heads, Layers, Positions, Share, Text, Wide, Width, check_heads
from echox.models.encoder import Attention, Keys
from echox.models.io import Stack, WholePart
from echox.models.packed import Table
from echox.models.ragged import within

WHISPER_DECODER = "model.decoder."


class ListenerConfig(PreTrainedConfig):
    """Sizes of a listener; the defaults are Whisper tiny.en's."""

    model_type = "echox_listener"
    width: Width = 384
    layers: Layers = 4
    heads: Heads = 6
    ffn: Wide = 1536
    vocab_size: Classes = 51864
    max_positions: Positions = 448
    begin: Annotated[tuple[Text, ...], Few] = ("<|startoftranscript|>", "<|notimestamps|>")  # every text begins so
    end: Text = "<|endoftext|>"
    tokens_per_second: Factor = 8.0  # a text that grows faster than speech does is cut: the decoder is looping
    beams: Annotated[int, Field(strict=True, ge=1, le=64)] = 4  # of the search for other texts where there is doubt
    doubt: Factor = 1.0  # nats by which a second token, and another text, may be less likely and still count
    rescoring: Share = 0.3  # weight of the text model's log-probability beside the listener's


class ListenerLayer(nn.Module):
    """One block of Whisper's decoder."""

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__()
        W = config.width
        self.self_attn = Attention(W, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(W)
        self.encoder_attn = Attention(W, config.heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(W)
        self.fc1, self.fc2 = nn.Linear(W, config.ffn), nn.Linear(config.ffn, W)
        self.final_layer_norm = nn.LayerNorm(W)

    def forward(
        self, x_BNW: torch.Tensor, speech: Keys, mask_B11T: torch.Tensor, past: Keys | None, causal: torch.Tensor
    ) -> tuple[torch.Tensor, Keys]:
        """Return new positions (B, N, W) and the keys and values of all text so far."""
        normed = self.self_attn_layer_norm(x_BNW)
        keys, values = self.self_attn.keys_values(normed)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        x_BNW = x_BNW + self.self_attn(normed, keys, values, causal)
        x_BNW = x_BNW + self.encoder_attn(self.encoder_attn_layer_norm(x_BNW), *speech, mask_B11T)
        x_BNW = x_BNW + self.fc2(nn.functional.gelu(self.fc1(self.final_layer_norm(x_BNW))))
        return x_BNW, (keys, values)


@dataclass
class ListenerState:
    """Everything one running hearing owns: the speech and the text so far, layer by layer."""

    speech: list[Keys]
    mask_B11T: torch.Tensor  # which frames are real
    past: list[Keys | None]
    length: int = 0

    def take(self, rows: torch.Tensor) -> None:
        """Go on from these rows, of one sound all of them."""
        self.past = [kept and (kept[0][rows], kept[1][rows]) for kept in self.past]
        if len(rows) != len(self.mask_B11T):
            self.speech = [(keys[rows], values[rows]) for keys, values in self.speech]
            self.mask_B11T = self.mask_B11T[rows]

    def forget(self, count: int) -> None:
        """Take the last `count` tokens of the text back."""
        if count:
            self.length -= count
            self.past = [kept and (kept[0][:, :, :-count], kept[1][:, :, :-count]) for kept in self.past]


@dataclass
class Greedy:
    """What a sound was taken for, by the likeliest token at every step."""

    tokens: list[int] = field(default_factory=list)
    odds: list[list[float]] = field(
        default_factory=list
    )  # of each token and the next: its log-probability, and the second's
    ended: bool = False  # by itself: it was not cut

    def sure(self, doubt: float) -> int:
        """Return how many tokens there are before the first that won by at most `doubt` nats."""
        return next((place for place, (best, second) in enumerate(self.odds) if best - second <= doubt), len(self.odds))

    def score(self, first: int) -> float:
        """Return the log-probability of the tokens from place `first` on, and of the end; minus infinity if it was cut."""
        return sum(best for best, _ in self.odds[first:]) if self.ended else -math.inf


class Listener(WholePart[ListenerConfig]):
    """Whisper's decoder: encoder states to text tokens."""

    config_class = ListenerConfig

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__(config)
        check_heads(config.width, config.heads, 1, config.model_type)
        if config.max_positions <= len(config.begin):
            raise ModelError(f"{config.model_type} has max_positions {config.max_positions}: no text fits in.")
        self.embed_tokens = Table(config.vocab_size, config.width)
        self.embed_positions = nn.Embedding(config.max_positions, config.width)
        self.layers: Stack[ListenerLayer] = Stack(ListenerLayer(config) for _ in range(config.layers))
        self.layer_norm = nn.LayerNorm(config.width)

    @classmethod
    def from_whisper(cls, folder: str | Path) -> "Listener":
        """Return the decoder of a Whisper folder, untuned; ModelError when it holds none."""
        from transformers import WhisperForConditionalGeneration

        try:
            whisper = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{folder} is not a Whisper folder with a decoder ({error}): give a whole one.") from error
        own = whisper.config
        config = ListenerConfig(
            width=own.d_model,
            layers=own.decoder_layers,
            heads=own.decoder_attention_heads,
            ffn=own.decoder_ffn_dim,
            vocab_size=own.vocab_size,
            max_positions=own.max_target_positions,
        )
        state = {k.removeprefix(WHISPER_DECODER): v for k, v in whisper.state_dict().items() if WHISPER_DECODER in k}
        listener = cls(config)
        listener.load_state_dict(state)
        return listener

    def start(self, states_BTW: torch.Tensor, frames_B: torch.Tensor) -> ListenerState:
        """Return the state of hearing encoder states whose first `frames_B` frames are real."""
        mask_BT = within(frames_B.to(states_BTW.device), states_BTW.shape[1])
        speech = [layer.encoder_attn.keys_values(states_BTW) for layer in self.layers]
        return ListenerState(speech, mask_BT[:, None, None], [None] * len(self.layers))

    def forward(self, tokens_BN: torch.Tensor, state: ListenerState) -> torch.Tensor:
        """Return states (B, N, W) that predict the token after each of `tokens_BN`, and advance `state` in place."""
        N, first = tokens_BN.shape[1], state.length
        places = torch.arange(first, first + N, device=tokens_BN.device)
        x_BNW = self.embed_tokens(tokens_BN) + self.embed_positions(places)
        causal = torch.ones(N, first + N, dtype=torch.bool, device=tokens_BN.device).tril(first)
        for number, layer in enumerate(self.layers):
            speech, past = state.speech[number], state.past[number]
            x_BNW, state.past[number] = layer(x_BNW, speech, state.mask_B11T, past, causal)
        state.length += N
        return self.layer_norm(x_BNW)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return scores (..., V) of states (..., W): the token table is the head."""
        return self.embed_tokens.scores(hidden)

    @torch.inference_mode()
    def generate(
        self,
        states_BTW: torch.Tensor,
        frames_B: torch.Tensor,
        begin: list[int],
        end: int,
        seconds: list[float],
        guesses: Sequence[list[int]] = (),
    ) -> list[Greedy]:
        """Return the greedy text of each row, between `begin` and `end`.

        `seconds` of speech limit the number of its tokens. `guesses` of the rows change nothing but the time: tokens guessed right
        are read in one pass instead of one each.
        """
        room = self.config.max_positions - len(begin)
        limits = [min(room, 8 + int(self.config.tokens_per_second * length)) for length in seconds]
        state, place = self.start(states_BTW, frames_B), len(begin) - 1
        guessed = _even(guesses or [[]] * len(limits), end, min(limits))
        tokens_BN = torch.tensor([[*begin, *guess] for guess in guessed], device=states_BTW.device)
        rows, running = [Greedy() for _ in limits], list(range(len(limits)))
        while running:
            logits_BNV = self.logits(self(tokens_BN, state)[:, place:])
            best_BN2, best_two_BN2 = logits_BNV.topk(2)
            odds_BN2 = best_BN2 - logits_BNV.logsumexp(-1, keepdim=True)
            found_BN = best_two_BN2[..., 0]
            right = int((tokens_BN[:, place + 1 :] == found_BN[:, :-1]).all(0).cumprod(0).sum())
            if not torch.isfinite(best_BN2[:, : right + 1]).all():
                raise ModelError("the listener's numbers overflow (NaN or infinity): fetch the model again.")
            tokens, odds = found_BN.tolist(), odds_BN2.tolist()
            for place in range(right + 1):
                for row in list(running):
                    one, token = rows[row], tokens[row][place]
                    one.odds.append(odds[row][place])
                    one.ended = token == end
                    if one.ended or len(one.tokens) == limits[row]:
                        running.remove(row)
                    else:
                        one.tokens.append(token)
            state.forget(found_BN.shape[1] - 1 - right)
            tokens_BN, place = found_BN[:, right : right + 1], 0
        return rows


def _even(guesses: Sequence[list[int]], end: int, most: int) -> list[list[int]]:
    """Return guesses of one length, at most `most` tokens, the shorter ones filled up with `end`."""
    longest = min(max(map(len, guesses)), most)
    return [[*guess, *[end] * longest][:longest] for guess in guesses]
