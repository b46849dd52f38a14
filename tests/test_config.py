"""Recipes from files, from the installed package, and with overrides that are not YAML."""

import pytest

from echox.config import load
from echox.errors import ConfigError


def test_a_recipe_that_is_not_here_comes_from_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "site" / "echox"
    (package / "recipes").mkdir(parents=True)
    (package / "recipes" / "a.yaml").write_text("from: package")
    monkeypatch.setattr(load, "__file__", str(package / "config" / "load.py"))
    assert load.read_yaml("recipes/a.yaml") == {"from": "package"}
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.yaml").write_text("from: here")
    assert load.read_yaml("recipes/a.yaml") == {"from": "here"}
    with pytest.raises(ConfigError, match="recipes/b.yaml"):
        load.read_yaml("recipes/b.yaml")


@pytest.mark.parametrize("override", ["a=[1", "a", "a.b=1"])
def test_overrides_that_cannot_be_read_are_named(tmp_path, override):
    (tmp_path / "r.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="override"):
        load.read_yaml(tmp_path / "r.yaml", [override])
