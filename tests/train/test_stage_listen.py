"""The listening stage says what is wrong with a recipe before it reads any speech; the toy model trains it (tests/toy_model.py)."""

import pytest

from echox.errors import ModelError
from echox.train.stage_listen import build
from echox.train.stages import load_recipe
from echox.train.toy import write_whisper
from tests.toy_model import RECIPES


def test_a_layer_that_the_encoder_does_not_have_is_refused(tmp_path):
    whisper = write_whisper(tmp_path)
    with pytest.raises(ModelError, match=rf"^layer 9 does not exist: {whisper} has layers 1 to 2\.$"):
        build(load_recipe(RECIPES / "listen.yaml", [f"whisper={whisper}", "encoder_layer=9"]))
