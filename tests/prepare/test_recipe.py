"""The shipped data recipe is what its comments say, and wrong recipes are refused."""

import re
from pathlib import Path

import pytest
import yaml

from echox.errors import ConfigError
from echox.eval.tasks.spoken_set import HELD_OUT
from echox.prepare.recipe import ASKING_VOICES, HELD_OUT_VOICES, load_data_recipe
from echox.train.stages import run_recipe

SHIPPED = Path(__file__).parents[2] / "recipes" / "mini" / "data.yaml"


def changed(tmp_path: Path, edit) -> Path:
    tree = yaml.safe_load(SHIPPED.read_text())
    edit(tree)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_held_out_corpora_use_exactly_the_held_out_voices():
    recipe = load_data_recipe(SHIPPED)
    for corpus in recipe.corpora.values():
        styles = {style for voice in corpus.voices for style in voice.styles}
        if corpus.split == "heldout":
            assert styles == set(ASKING_VOICES)
        else:
            assert not styles & set(HELD_OUT_VOICES)
    heldout, noisy = recipe.corpora["heldout"], recipe.corpora["heldout_noisy"]
    assert (heldout.voices, heldout.texts, heldout.seed) == (noisy.voices, noisy.texts, noisy.seed)


def test_questions_are_asked_in_voices_that_are_held_out_and_speak_english():
    assert HELD_OUT.kind == "kokoro"
    assert set(HELD_OUT.styles) <= set(HELD_OUT_VOICES)
    assert all(re.fullmatch("[ab][fm]_[a-z]+", style) for style in HELD_OUT.styles)  # American or British, a name


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tree: tree["texts"].update(trivia_heldout=3), "trivia_heldout"),
        (lambda tree: tree["corpora"]["user"]["voices"][0].update(kind="parrot"), "kind"),
        (lambda tree: tree["corpora"]["listen_kokoro"]["voices"][0].update(styles=["af_bella"]), "held-out voices"),
        (lambda tree: tree["corpora"]["listen_kokoro"]["voices"][0].update(styles=["af_sky+am_eric@0.3"]), "held-out"),
        (lambda tree: tree["corpora"]["listen_kokoro"]["voices"][0].update(styles=[]), "styles"),
        (lambda tree: tree["corpora"]["user"]["voices"][0].update(mixes=0.5, kind="flite"), "mixes are of two"),
        (lambda tree: tree["corpora"]["user"]["voices"][0].update(pitch=[1.2, 0.9]), "pitch: a range begins"),
        (lambda tree: tree["corpora"]["user"].update(perturb={"noise_share": 2}), "noise_share"),
        (lambda tree: tree["sources"].pop("tatoeba"), "tatoeba"),
    ],
)
def test_wrong_recipes_are_refused_by_name(tmp_path, edit, message):
    with pytest.raises(ConfigError, match=message):
        load_data_recipe(changed(tmp_path, edit))


@pytest.mark.parametrize("edit", [lambda tree: tree.update(sources=5), lambda tree: tree["sources"].update(tatoeba=5)])
def test_a_local_copy_of_a_source_that_is_no_group_of_settings_is_refused(tmp_path, edit):
    with pytest.raises(ConfigError, match="should be a group of settings"):
        load_data_recipe(changed(tmp_path, edit), {"tatoeba": Path("pairs.zip")})


def test_unknown_source_corpus_and_training_are_refused():
    with pytest.raises(ConfigError, match="no source 'squad'"):
        load_data_recipe(SHIPPED, {"squad": Path("x")})
    recipe = load_data_recipe(SHIPPED, {"tatoeba": Path("pairs.zip")})
    assert recipe.sources.tatoeba.path == Path("pairs.zip") and recipe.sources.multi30k.path is None
    with pytest.raises(ConfigError, match="no corpus 'users'"):
        recipe.corpus("users")
    with pytest.raises(ConfigError, match="echox prepare"):
        run_recipe(SHIPPED)
