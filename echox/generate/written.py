"""A translation word by word: states of speech or text in, target tokens out, by beam or as they come; it knows no tokenizer.

Legend: B sentences, K hypotheses, N positions, V vocabulary, W width.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from echox.generate.beam import Search, beam_search
from echox.models.speech_translator import BLANK, END, PAD, UNKNOWN, Positioned, SpeechTranslatorModel

NEVER = (PAD, UNKNOWN)


class Writer:
    """The decoder's step over hypotheses, with the keys of what each has said."""

    def __init__(self, model: SpeechTranslatorModel, states: Positioned) -> None:
        self.model, self.states = model, states
        self._past: Any = None
        self._owners = torch.arange(len(states.states_BNW))  # the sentence of every hypothesis, in order

    def step(self, tokens_BK: torch.Tensor, parents_BK: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K, V) after `tokens_BK`, each of which goes on from its parent of the step before."""
        sentences, beams = tokens_BK.shape
        if self._past is not None:
            before = len(self._owners) // sentences
            rows = (torch.arange(sentences)[:, None] * before + parents_BK).flatten()
            self._past.reorder_cache(rows.to(self.states.states_BNW.device))
            self._owners = torch.arange(sentences).repeat_interleave(beams)
        where = self._owners.to(self.states.states_BNW.device)
        output = self.model.text(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.states.states_BNW[where]),
            attention_mask=self.states.mask_BN[where].long(),
            decoder_input_ids=tokens_BK.reshape(-1, 1).to(where.device),
            past_key_values=self._past,
            use_cache=True,
        )
        self._past = output.past_key_values
        return output.logits[:, -1].unflatten(0, (sentences, beams))


def write_best(
    model: SpeechTranslatorModel, states: Positioned, most: int, beams: int = 8, length_penalty: float = 1.0
) -> list[tuple[list[int], bool]]:
    """Return each row's best target tokens by beam search, and whether they came to their end within `most`."""
    search = Search(BLANK, END, beams, length_penalty, min(most, model.config.max_positions - 1), never=NEVER)
    found = beam_search(Writer(model, states).step, len(states.states_BNW), search)
    return [(one.tokens, one.ended) for one in found]


@torch.inference_mode()
def write_stream(model: SpeechTranslatorModel, states: Positioned, most: int) -> Iterator[int]:
    """Yield one row's target tokens as they are chosen, the likeliest at every step: what a beam of one writes."""
    writer, token = Writer(model, states), torch.full((1, 1), BLANK)
    for _ in range(min(most, model.config.max_positions - 1)):
        logits_V = writer.step(token, torch.zeros(1, 1, dtype=torch.long))[0, 0].float()
        logits_V[[BLANK, *NEVER]] = -torch.inf
        token = logits_V.argmax().view(1, 1).cpu()
        if int(token) == END:
            return
        yield int(token)
