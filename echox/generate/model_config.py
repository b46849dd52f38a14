"""What the config.json of a model folder may say: names, types and bounds, for a folder may be somebody else's (docs/safety.md)."""

from typing import Any, Literal

from echox.models.bounds import Classes, Layers, Text

MODEL_TYPE = "echox_assistant"


class ModelConfig:
    """What the config.json of a model folder may say."""

    model_type: Text
    encoder_layer: Layers
    encoder_windows: Literal["own", "full"]  # full: every window 30 s long, as Whisper's own (spec section 2.1)
    llm: dict[str, str | int]  # a published file (hub_llm.LlmSource), or {"folder": name of a folder in this one}
    about: Text
    trigger: dict[str, Any]  # TriggerSettings: cut by trigger score instead of phrases (spec section 6.2)
    phrases: dict[str, Any]  # PhraseSettings: where phrases end a segment, if not where they do by default
    spelled_units: Classes  # unit tokens that the LLM's tokenizer spells; 0: units/ holds a unit language
