"""The `texts` step: sources in, `qa_train.jsonl`, `qa_heldout.jsonl`, `qa_reserve.jsonl`, `sentences.jsonl` out."""

from dataclasses import asdict
from pathlib import Path

from echox.data.manifest import write_jsonl
from echox.errors import ConfigError
from echox.prepare.recipe import Recipe, Source, Sources
from echox.prepare.sources import Question, read_captions, read_tatoeba, read_trivia, read_webquestions
from echox.prepare.texts import (
    answer_sentences,
    choice_sentences,
    interleave,
    is_askable,
    lowest,
    near_repeats,
    number_sentences,
    plain_sentences,
    shuffled,
    unique,
)


def _path(source: Source, name: str) -> Path:
    if source.path is None:
        raise ConfigError(f"source {name} has no local path: download {source.url} and give --source {name}=FOLDER.")
    return source.path


def _sources(recipe: Recipe) -> Sources:
    if recipe.sources is None:
        raise ConfigError("the recipe names no sources: its texts are written by a stage of `echox train`.")
    return recipe.sources


def split_questions(recipe: Recipe) -> tuple[list[Question], list[Question], list[Question]]:
    """Return (train, measured, reserve) questions.

    Measured and reserve hold WebQuestions val and devtest whole and a hash-chosen part of the trivia; train holds the
    rest of the trivia and WebQuestions trainmodel, without near repeats of either.
    """
    settings, sources = recipe.texts, _sources(recipe)

    def askable(entry: Question) -> bool:
        return is_askable(entry, settings.max_question_words, settings.max_answer_words)

    web = _path(sources.webquestions, "webquestions")
    trivia = unique(filter(askable, read_trivia(_path(sources.opentriviaqa, "opentriviaqa"))))
    web_test = unique([*read_webquestions(web / "val.json"), *read_webquestions(web / "devtest.json")])
    web_test = lowest(web_test, len(web_test), "held-out")
    trivia_test = lowest(trivia, settings.trivia_held_out, "held-out")
    half = settings.measured_per_source
    measured = interleave(web_test[:half], trivia_test[:half])
    reserve = [*web_test[half:], *trivia_test[half:]]
    train = unique([*trivia, *filter(askable, read_webquestions(web / "trainmodel.json"))])
    repeats = near_repeats(train, [*measured, *reserve], settings.near_repeat_jaccard)
    train = [entry for entry in train if entry.id not in repeats]
    return lowest(train, len(train), "train"), measured, reserve


def write_texts(recipe: Recipe, folder: Path) -> dict[str, int]:
    """Write the four text files into `folder` and return how many lines each has."""
    train, measured, reserve = split_questions(recipe)
    sources = _sources(recipe)
    captions = _path(sources.multi30k, "multi30k")
    captions = next((path for path in (captions / "train.en.gz", captions / "train.en") if path.exists()), captions)
    tatoeba = _path(sources.tatoeba, "tatoeba")
    tatoeba = tatoeba / "fra-eng.zip" if tatoeba.is_dir() else tatoeba
    sentences = shuffled(
        [
            *answer_sentences(train, recipe.texts.carriers_per_answer, recipe.texts.max_answer_words),
            *choice_sentences(train, recipe.texts.choice_sentences, recipe.texts.max_answer_words),
            *number_sentences(recipe.texts.number_sentences),
            *plain_sentences(read_tatoeba(tatoeba), "tatoeba", recipe.texts.tatoeba_sentences),
            *plain_sentences(read_captions(captions), "multi30k", recipe.texts.multi30k_sentences, max_words=18),
        ]
    )
    files = {"qa_train": train, "qa_heldout": measured, "qa_reserve": reserve}
    for name, questions in files.items():
        rows = ({key: value for key, value in asdict(entry).items() if key != "choices"} for entry in questions)
        write_jsonl(folder / f"{name}.jsonl", rows)
    write_jsonl(folder / "sentences.jsonl", ({"id": key, "text": text} for key, text in sentences))
    return {**{name: len(questions) for name, questions in files.items()}, "sentences": len(sentences)}
