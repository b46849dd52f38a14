"""What a model's states are, read from the public parts of an assistant: typed, spoken, echoed words and plain units.

Every reader returns one array [tokens, H] a layer, from the first layer to the last, for the words themselves (no template
around them counts). Nothing is changed on the assistant: `untouched` gives a second one around the published LLM.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from echox.errors import ConfigError

States = Sequence[Any]


@dataclass(frozen=True)
class AssistantStates:
    """The four views of a loaded assistant; waves are float32 at 16 kHz."""

    assistant: Any

    def typed_states(self, text: str) -> States:
        """Return every layer's states (tokens, H) of a typed question."""
        from echox.generate.answer import read

        return self._states(read(self.assistant.parts, text))

    def spoken_states(self, wave: np.ndarray) -> States:
        """Return every layer's states (positions, H) of a spoken question."""
        return self._states(self.assistant.parts.ear.hear([wave])[0].positions_NH)

    def echo_states(self, text: str) -> States:
        """Return the echo decoder's states (text positions, W) where it reads the LLM's states of saying `text`."""
        import torch

        from echox.generate import answer
        from echox.models.llm import token_pieces
        from echox.text.prompt import encode

        parts = self.assistant.parts
        ids, decoder = encode(parts.tokenizer, text), parts.echo.t2c
        with torch.inference_mode():
            hidden_NH = answer.answer_states(parts, [answer.read(parts, "Say it.")], [ids])[0]
            positions_NH = parts.echo.positions(hidden_NH, parts.s2t.embed(ids).float())
            layout = decoder.layout(token_pieces(parts.tokenizer, ids))
            read_CW = decoder.read([positions_NH], [layout])[0]
            places_1C = layout.places_C[None].to(read_CW.device)
            output = decoder.decoder(inputs_embeds=read_CW[None], position_ids=places_1C, output_hidden_states=True)
        return [layer[0] for layer in output.hidden_states]

    def unit_states(self, text: str) -> States:
        """Return the embeddings (units, D) of the units that T2C says `text` with."""
        import torch

        units, parts = self.assistant.say(text).units, self.assistant.parts
        with torch.inference_mode():
            return [parts.vocoder.embedding(torch.tensor(units, device=parts.device))] if units else [torch.zeros(1, 1)]

    def _states(self, question_NH: Any) -> States:
        import torch

        s2t, prompt = self.assistant.parts.s2t, self.assistant.parts.prompt
        with torch.inference_mode():
            before_NH, after_NH = s2t.embed(prompt.before), s2t.embed(prompt.after)
            row_NH = torch.cat([before_NH, question_NH.to(before_NH.dtype), after_NH])
            layers = s2t.llm.get_decoder()(inputs_embeds=row_NH[None], output_hidden_states=True).hidden_states
        return [layer[0, len(before_NH) : len(before_NH) + len(question_NH)].float() for layer in layers]


def states_of(model: Any) -> Any:
    """Return what reads a model's states: an assistant's parts, or any model that has methods of `AssistantStates` itself."""
    return AssistantStates(model) if parts_of(model) is not None else model


def can_turn_off(model: Any) -> bool:
    """Return whether a model has adapters and can answer without them."""
    parts = parts_of(model)
    return hasattr(model, "without_adapters") or (parts is not None and bool(parts.s2t.lora.names))


def untouched(model: Any) -> Any:
    """Return the model around its LLM as it was published, sharing every other part; `model` itself stays as it is.

    A model of another make has `without_adapters()` for it. A model of ours without adapters is returned itself; ConfigError where
    neither can be.
    """
    if hasattr(model, "without_adapters"):
        return model.without_adapters()
    parts = parts_of(model)
    if parts is None:
        raise ConfigError("this model has no adapters to turn off: leave the arm t2t-off out.")
    if not parts.s2t.lora.names:
        return model
    from echox.models.llm import Place, load_llm

    dtype = next(parts.s2t.llm.parameters()).dtype
    s2t = copy(parts.s2t)  # its parts, but a table of its own to enter another LLM
    s2t._modules = {**parts.s2t._modules, "llm": load_llm(parts.llm_folder, Place(parts.device, dtype))}
    return type(model)(replace(parts, s2t=s2t))


def parts_of(model: Any) -> Any:
    """Return the parts of an assistant of this package, None for any other model."""
    parts = getattr(model, "parts", None)
    return parts if hasattr(parts, "llm_folder") else None
