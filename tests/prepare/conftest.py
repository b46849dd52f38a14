"""Tiny sources in the formats of the public collections."""

import gzip
import json
import zipfile

import pytest
import yaml

from echox.prepare.recipe import load_data_recipe

PLACES = ("France", "Spain", "Italy", "Peru", "Chad", "Cuba", "Iran", "Iraq", "Mali", "Oman", "Togo", "Fiji")


@pytest.fixture
def sources(tmp_path):
    """Folders of a dozen trivia questions, a few WebQuestions, sentence pairs and captions."""
    trivia = tmp_path / "trivia"
    trivia.mkdir()
    entries = [f"#Q What is the capital of {place}?\n^ {place} City\nA {place} City\nB Other\n" for place in PLACES]
    (trivia / "geography").write_text("\n".join(entries), encoding="utf-8")
    (trivia / "people").write_bytes("#Q Who wrote the song\nCafé Noir?\n^ José Mel\nA José Mel\n".encode("cp1252"))
    web = tmp_path / "web"
    web.mkdir()
    for name, subject in (("trainmodel", "tea"), ("val", "milk"), ("devtest", "wine")):
        rows = [
            {"qId": f"{name}{n}", "answers": [f"{subject} {n}"], "qText": f"who sells {subject} on street {n}?"}
            for n in range(4)
        ]
        (web / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "fra-eng.zip", "w") as archive:
        archive.writestr("_about.txt", "about")
        archive.writestr(
            "fra.txt", "Go.\tVa !\nI like tea.\tJ'aime le thé.\nI like tea!\tJ'aime le thé !\nWe are at home.\tX"
        )
    (tmp_path / "train.en.gz").write_bytes(gzip.compress(b"Two dogs run on the grass.\nA man sleeps.\n"))
    return {"opentriviaqa": trivia, "webquestions": web, "tatoeba": tmp_path / "fra-eng.zip", "multi30k": tmp_path}


@pytest.fixture
def recipe(tmp_path, sources):
    """A recipe over the tiny sources whose corpora are spoken by tones."""
    public = {name: {"url": "https://example.org", "licence": "CC0"} for name in sources}
    corpus = {"texts": "qa_train.jsonl", "field": "question", "role": "user", "split": "train", "seed": 3}
    voice = {"kind": "tones", "pitch": [0.8, 1.25], "tempo": [0.9, 1.1]}
    tree = {
        "stage": "data",
        "sources": public,
        "texts": {"trivia_held_out": 4, "measured_per_source": 3, "tatoeba_sentences": 5, "multi30k_sentences": 5},
        "shard_texts": 3,
        "corpora": {"user": {**corpus, "voices": [voice], "perturb": {}}, "plain": {**corpus, "voices": [voice]}},
    }
    (tmp_path / "replies.txt").write_text("Yes.\n\nNo.\n", encoding="utf-8")
    tree["texts"] |= {"short_sentences": 3, "short_stretches": 3, "short_answers": 2}
    tree["texts"] |= {"replies": str(tmp_path / "replies.txt"), "reply_times": 2}
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return load_data_recipe(path, sources)
