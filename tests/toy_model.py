"""The toy model folder of the debug recipes, made once a test session by running every stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

STAGES = ("encode", "units", "answers", "vocoder", "t2c", "teacher", "voice", "align", "s2t", "echo", "pack")
RECIPES = Path(__file__).parents[1] / "recipes" / "debug"


def run_stages(root: Path, stages: Sequence[str], **world: Any) -> Path:
    """Make the toy data under `root`, run debug recipes there in order, and return the folder of what they made."""
    from echox.train.stages import run_recipe
    from echox.train.toy import write_world

    write_world(root / "out" / "debug", **world)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in stages:
            run_recipe(RECIPES / f"{stage}.yaml")
    return root / "out" / "debug"


def make(root: Path) -> Path:
    """Run every stage under `root` and return the model folder."""
    return run_stages(root, STAGES) / "model"


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that went through every stage."""
    return make(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def listening_model(toy_model: Path) -> Path:
    """The same parts with a listener for an ear, the LLM as it is, an untrained echo decoder, and int8 on disk."""
    from echox.train.stages import run_recipe

    overrides = ["out=out/debug/listening", "listener=out/debug/listen/final", "s2t=null", "echo=null", "int8=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(toy_model.parents[2])
        run_recipe(RECIPES / "listen.yaml")
        run_recipe(RECIPES / "pack.yaml", [*overrides, "encoder=out/debug/whisper"])
    return toy_model.parent / "listening"


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Say how the weather is.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
CALLING = (  # a chat template that tells of tools, as Hermes and Qwen write them
    "{% if tools %}<|im_start|>system\n{{ messages[0].content if messages[0].role == 'system' }}"
    "{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages if not (tools and m.role == 'system') %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    '{% for call in m.tool_calls %}{{ \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
