"""What lies in an output folder under a name of ours, and is none of ours, stays; a run of ours is written again."""

from types import SimpleNamespace

import pytest

from echox.data.manifest import write_shards
from echox.errors import OutputError
from echox.eval.boards.predictions import write_ultraeval, write_uro, write_voicebench
from echox.eval.tasks.gap import run_gap
from echox.eval.tasks.latency import run_latency
from echox.eval.tasks.load import Load, run_load
from echox.eval.tasks.qa import run_qa
from echox.eval.tasks.spoken_set import make_set
from echox.eval.tasks.translation import TranslationOptions, run_tasks
from echox.files import refuse_others
from echox.prepare import answers, text_pairs, triples, vocabulary
from echox.prepare.filters import transcribe_real
from echox.prepare.pairs import write_table
from echox.prepare.speak import speak_corpus
from echox.prepare.texts import write_texts

RECORD = {"id": "a", "audio": "a.wav", "samples": 1, "sample_rate": 16_000}
SPEAKER = SimpleNamespace(corpus=SimpleNamespace(files=True))
LOAD = Load("http://127.0.0.1:9/v1", "fake", 1, 1)


def stage(module, **settings):
    """Return what runs a stage of files into a folder; its settings name files that are none."""
    name = module.__name__.rpartition(".")[2]
    return lambda out: module.run(module.Recipe.parse({"stage": name, "out": out} | settings, "here"))


def pair_table(out):
    for side in ("source", "target"):
        write_shards(out.parent / side, [RECORD])
    write_table(out.parent / "source", out.parent / "target", out)


VERBS = {
    "report.html": lambda out: run_qa([], "", None, [], SimpleNamespace(out=out), print),
    "table.md": lambda out: run_qa([], "", None, [], SimpleNamespace(out=out), print),
    "latency.md": lambda out: run_latency(None, "m", [], out),
    "gap.jsonl": lambda out: run_gap(object(), "m", [], None, out),
    "gap.md": lambda out: run_gap(object(), "m", [], None, out),
    "gap.svg": lambda out: run_gap(object(), "m", [], None, out),
    "load.jsonl": lambda out: run_load(LOAD, [], out),
    "load.md": lambda out: run_load(LOAD, [], out),
    "load.svg": lambda out: run_load(LOAD, [], out),
    "spaces.svg": lambda out: run_tasks([], {}, [], TranslationOptions(out, "x")),
    "questions.tsv": lambda out: make_set(out, [], (0, 0), lambda: None, "clean"),
    "m-d-s-audio.jsonl": lambda out: write_voicebench(out, [], "m", "d", "s"),
    "ultraeval.jsonl": lambda out: write_ultraeval(out / "ultraeval.jsonl", [], False),
    "gt_text.jsonl": lambda out: write_uro(out, []),
    "held_out.txt": lambda out: transcribe_real(out, out, None),
    "manifest.jsonl": lambda out: write_shards(out, [RECORD]),
    "shard-00000.jsonl": lambda out: write_shards(out, [RECORD]),
    "a.wav": pair_table,
    "pairs.tsv": pair_table,
    "short.jsonl": lambda out: write_texts(None, out),
    "targets.jsonl": stage(answers, llm="llm", questions="q.jsonl"),
    "train.jsonl": stage(text_pairs, sources=[{"tatoeba": "t"}]),
    "vocabulary.model": stage(vocabulary, texts=["t.jsonl"]),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_file_of_somebody_else_stays(name, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("years of work")
    with pytest.raises(OutputError, match=f"{name} of something else, which is not replaced"):
        VERBS[name](folder)
    assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_text() == "years of work"


@pytest.mark.parametrize(
    "verb", [lambda out: speak_corpus(None, out, SPEAKER, 3), stage(triples, format="covost", root="r", target="de")]
)
def test_a_manifest_of_somebody_else_stays(verb, tmp_path):
    (tmp_path / "manifest.jsonl").write_text("years of work")
    with pytest.raises(OutputError, match="manifest.jsonl of something else"):
        verb(tmp_path)


def test_the_mark_of_a_run_is_how_its_own_record_begins(tmp_path):
    refuse_others(tmp_path / "none", ["table.md"], "*.jsonl", b"{ours")
    (tmp_path / "notes.jsonl").write_text("{mine")
    refuse_others(tmp_path, ["table.md"], "*.jsonl", b"{ours")
    (tmp_path / "table.md").symlink_to(tmp_path / "absent")
    with pytest.raises(OutputError, match="holds a table.md of something else"):
        refuse_others(tmp_path, ["table.md"], "*.jsonl", b"{ours")
    (tmp_path / "results.jsonl").write_text("{ours")
    refuse_others(tmp_path, ["table.md"], "*.jsonl", b"{ours")
    with pytest.raises(OutputError, match="it is a file"):
        refuse_others(tmp_path / "notes.jsonl", [], "*.jsonl")
