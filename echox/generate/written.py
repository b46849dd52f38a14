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
        self._beams = 0  # hypotheses of every sentence
        self._read: dict[str, Any] = {}  # what the decoder reads of the sentence of every hypothesis

    def step(self, tokens_BK: torch.Tensor, parents_BK: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K, V) after `tokens_BK`, each of which goes on from its parent of the step before."""
        sentences, beams = tokens_BK.shape
        states_BNW, mask_BN = self.states.states_BNW, self.states.mask_BN
        if self._past is not None:
            rows = (torch.arange(sentences)[:, None] * self._beams + parents_BK).flatten().to(states_BNW.device)
            # what was heard is the same for all hypotheses of a sentence, as long as there are as many
            (self._past.self_attention_cache if beams == self._beams else self._past).reorder_cache(rows)
        if beams != self._beams:
            where = torch.arange(sentences, device=states_BNW.device).repeat_interleave(beams)
            read = BaseModelOutput(last_hidden_state=states_BNW[where])
            self._beams, self._read = beams, {"encoder_outputs": read, "attention_mask": mask_BN[where].long()}
        output = self.model.text(
            decoder_input_ids=tokens_BK.reshape(-1, 1).to(states_BNW.device),
            past_key_values=self._past,
            use_cache=True,
            **self._read,
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
