"""The example of docs/training.md trains as it stands there."""

import re
from pathlib import Path

import torch

from echox.train.loop import train

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def test_the_stage_of_the_page_learns(tmp_path):
    (code,) = re.findall("```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    scope = {}
    exec(code, scope)
    settings = {"steps": 200, "precision": "fp32", "optim": {"lr": 0.05, "weight_decay": 0.0, "warmup_steps": 1}}
    recipe = scope["Recipe"].parse({"stage": "sums", "out": tmp_path, "train": settings}, "test")
    final = train(scope["build"](recipe), recipe.train, recipe.out)
    learnt = torch.load(final / "sums.pt")
    torch.testing.assert_close(learnt["line.weight"], torch.ones(1, 4), atol=0.05, rtol=0)
