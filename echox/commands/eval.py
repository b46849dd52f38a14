"""`echox eval`: how well a model answers, how it sounds, how fast it is, and what its states hold.

Parses options and prints; all work is in echox/eval. Nothing heavy is imported before a verb runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from echox.commands.options import LARGEST_SEED, Device, Llm, checked_shard, finite, positive
from echox.errors import ConfigError

if TYPE_CHECKING:
    from echox.eval.tables import Table

app = typer.Typer(help="Measure a model of ours, or anybody's server.", no_args_is_help=True, add_completion=False)

Model = Annotated[str, typer.Option("--model", help="A released name, a model folder, or a server's model name.")]
Endpoint = Annotated[
    str, typer.Option("--endpoint", help="An OpenAI-compatible server, http://host/v1; its key is in OPENAI_API_KEY.")
]
JudgeName = Annotated[str, typer.Option("--judge", help="Recogniser that hears the answers: folder or name.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for results, audio and report.")]
Questions = Annotated[Path | None, typer.Option(help="TSV file: id, question, answers, audio.")]
AudioDir = Annotated[Path | None, typer.Option(help="Folder of the spoken questions (<id>.wav).")]
Suite = Annotated[str, typer.Option(help="A named set instead: llama-questions, web-questions, trivia-qa, ...")]
Data = Annotated[Path | None, typer.Option(help="The suite's local copy; without it the hub is asked.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="Of --questions: voicebench, ultraeval, uro, openaudiobench, nq-open, webquestions or texts."
    ),
]
Shard = Annotated[str, typer.Option(callback=checked_shard, help="I/N: only every N-th question, from the I-th.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N questions.")]
Window = Annotated[int, typer.Option(min=1, max=30, help="Seconds of audio a Whisper judge pads to; 30 is its own.")]
Timeout = Annotated[float, typer.Option(callback=positive, help="Seconds an endpoint may take for one answer.")]
Live = Annotated[bool, typer.Option("--live", help="Say the questions in real time: they are heard meanwhile.")]


@app.command()
def qa(
    questions: Questions = None,
    audio_dir: AudioDir = None,
    suite: Suite = "",
    data: Data = None,
    retention: Annotated[Path | None, typer.Option(help="A spoken set: what is kept of the typed answers.")] = None,
    condition: Annotated[str, typer.Option(help="Its recordings: clean, noise, telephone or room.")] = "clean",
    typed_from: Annotated[Path | None, typer.Option(help="results.jsonl with typed answers to take over.")] = None,
    model: Model = "mini",
    endpoint: Endpoint = "",
    arms: Annotated[str, typer.Option(help="t2t, t2t-form, t2t-off, s2t, s2s, teacher, cascade.")] = "t2t,s2t,s2s",
    judge: JudgeName = "",
    judge_window: Window = 15,
    recogniser: Annotated[str, typer.Option(help="Recogniser of the cascade; the judge if not given.")] = "",
    form: Format = "",
    scorer: Annotated[str | None, typer.Option(help="Comma-separated, the first in tables; else the suite's.")] = None,
    scorer_endpoint: Annotated[str, typer.Option(help="Server of the scorers that ask a language model.")] = "",
    scorer_model: Annotated[str, typer.Option(help="Its model.")] = "",
    scorer_prompt: Annotated[Path | None, typer.Option(help="A board's own prompt for such a scorer.")] = None,
    out: Out = Path("report"),
    limit: Limit = None,
    shard: Shard = "0/1",
    batch: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 8,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of every answer.")] = 0,
    max_seconds: Annotated[
        float | None, typer.Option(callback=positive, help="Longest answer, in seconds; no server is told.")
    ] = None,
    device: Device = "auto",
    llm: Llm = None,
    system: Annotated[str, typer.Option(help="Instruction sent to an endpoint with every question.")] = "",
    timeout: Timeout = 120.0,
    retries: Annotated[int, typer.Option(min=0, help="How often a passing fault of an endpoint is tried again.")] = 3,
    retry_failed: Annotated[bool, typer.Option(help="Do the failed items of an earlier run again.")] = False,
) -> None:
    """Answer spoken and typed questions by several arms and print accuracy, gaps and speech errors with intervals."""
    from echox.eval.boards.sets import default_scorer, load_questions
    from echox.eval.model_under_test import ModelChoice
    from echox.eval.report.page import write_report
    from echox.eval.scorers.answers import choose_scorers
    from echox.eval.tasks.qa import SPOKEN_QUESTION, QaOptions, refuse_all_failed, run_qa
    from echox.eval.tasks.spoken_set import read_set

    pool = None
    if retention is None:
        spoken = bool(SPOKEN_QUESTION & {name.strip() for name in arms.split(",")})
        _check_one_set(questions, suite)
        items, source = load_questions(questions, audio_dir, suite, data, spoken, form)
    elif questions is None and not suite:
        items, source, pool = read_set(retention, condition)
    else:
        raise ConfigError("--retention brings its own questions: leave --questions and --suite out.")
    rules = default_scorer(suite) if scorer is None else scorer
    scorers = choose_scorers(rules, scorer_endpoint, scorer_model, scorer_prompt)
    choice = ModelChoice(model, endpoint, device, llm, timeout, retries, system)
    hearing = (judge, judge_window, recogniser)
    options = QaOptions(arms, *hearing, out, limit, shard, batch, seed, max_seconds, retry_failed, pool, typed_from)
    found = run_qa(items, source, choice, scorers, options, typer.echo)
    _show(write_report([found.path], out, typer.echo))
    typer.echo(f"report: {out / 'report.html'}")
    refuse_all_failed(found)


@app.command("spoken-set")
def spoken_set(
    typed: Annotated[
        list[Path], typer.Argument(help="results.jsonl of `echox eval qa --arms t2t-off`, or JSONL of answers.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the set.")] = Path("spoken-set"),
    right: Annotated[int, typer.Option(min=1, help="So many questions that were answered right.")] = 480,
    wrong: Annotated[int, typer.Option(min=1, help="So many that were answered wrong.")] = 480,
    conditions: Annotated[str, typer.Option(help="Comma-separated.")] = "clean,noise,telephone,room",
    kokoro: Annotated[Path | None, typer.Option(help="Folder of Kokoro's model, vocab.json and voices.")] = None,
    scorer: Annotated[str, typer.Option(help="What makes a typed answer right.")] = "qa-exist-match",
    shard: Shard = "0/1",
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the choice, the voices and the noise.")
    ] = 0,
) -> None:
    """Choose questions by their typed answers and speak them in held-out voices, clean and spoilt."""
    from echox.eval.scorers.answers import find_scorer
    from echox.eval.tasks.spoken_set import HELD_OUT, KINDS, make_set, read_typed
    from echox.prepare.voices import make_voice

    found = read_typed(typed, find_scorer(scorer))
    chosen = make_set(out, found, (right, wrong), lambda: make_voice(HELD_OUT, kokoro), conditions, shard, seed)
    counts = {kind: sum(item.kind == kind for item in chosen) for kind in KINDS}
    pool = {kind: sum(item.kind == kind for item in found) for kind in KINDS}
    typer.echo(f"{out}  " + ", ".join(f"{counts[kind]} of {pool[kind]} {kind}" for kind in KINDS))


@app.command()
def hearing(
    spoken: Annotated[Path | None, typer.Option("--set", help="A set made by `echox eval spoken-set`.")] = None,
    conditions: Annotated[str, typer.Option(help="Its recordings, comma-separated.")] = "clean,noise,telephone,room",
    manifest: Annotated[list[Path] | None, typer.Option(help="A corpus whose words are known; repeat it.")] = None,
    clips: Annotated[list[Path] | None, typer.Option(help="A folder without transcripts; repeat it.")] = None,
    only: Annotated[Path | None, typer.Option(help="File names without endings, one a line: no other clips.")] = None,
    nothing: Annotated[int, typer.Option(min=0, help="So many clips of each kind in which nobody speaks.")] = 20,
    model: Model = "mini",
    reference: Annotated[str, typer.Option(help="Recogniser to stand beside, in its 30 s window.")] = "whisper-tiny.en",
    reference_beam: Annotated[int, typer.Option(min=1, max=100, help="How many texts it keeps in view.")] = 1,
    judge: Annotated[str, typer.Option(help="Recogniser that writes down the clips.")] = "whisper-base",
    out: Out = Path("report"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N of a condition or folder.")] = None,
    shard: Shard = "0/1",
    device: Device = "auto",
    llm: Llm = None,
) -> None:
    """Print the word errors of what a model heard, beside a recogniser's, and whether it hears words in no speech."""
    from echox.eval.model_under_test import ModelChoice, load_subject
    from echox.eval.questions import names_in
    from echox.eval.tasks.hearing import gather, load_recognisers, run_hearing

    arms = gather(spoken, names_in(conditions), manifest or [], clips or [], only, nothing)
    recognisers = load_recognisers(reference, reference_beam, judge if clips else "", device)
    subject, name = load_subject(ModelChoice(model, "", device, llm))
    _show(run_hearing(subject, name, arms, recognisers, out, typer.echo, limit, shard))


@app.command()
def translation(
    pairs: Annotated[Path, typer.Option(help="TSV file: id, audio, target_audio, source_text, target_text.")],
    audio_dir: Annotated[Path | None, typer.Option(help="Folder of the recordings (<id>.wav).")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A translator; repeat it to compare with the first.")] = None,
    judge: JudgeName = "whisper-base",
    judge_window: Window = 15,
    language: Annotated[str, typer.Option(help="Language that is spoken, for the judge.")] = "en",
    cascade: Annotated[str, typer.Option(help="A Whisper that translates into English; mini says its text.")] = "",
    source_language: Annotated[str, typer.Option(help="Language of the recordings, for the cascade.")] = "es",
    unit_encoder: Annotated[str, typer.Option(help="Encoder of units of no shipped voice, for unit BLEU.")] = "",
    tasks: Annotated[str, typer.Option(help="Of models that write, without judge: st, mt, asr, cascade, spaces.")] = "",
    beam: Annotated[int | None, typer.Option(min=1, max=100, help="Hypotheses in view; default: the model's.")] = None,
    out: Out = Path("report"),
    limit: Limit = None,
    device: Device = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
) -> None:
    """Print ASR-BLEU of spoken translations beside a ceiling and a cascade, or what `--tasks` names of models that write."""
    from echox.data.pairs import read_pairs
    from echox.eval.judges import FULL_WINDOW, load_judge
    from echox.eval.model_under_test import marks_of
    from echox.eval.tasks.translation import TranslationOptions, load_arms, run_translation
    from echox.models.device import pick_device

    found, models = read_pairs(pairs, audio_dir), model or []
    device = str(pick_device(device))
    how = {"weights": marks_of(models), "beams": beam or "own", "dtype": dtype or "own", "device": device}
    if tasks:
        from echox.eval.questions import chosen
        from echox.eval.report.plots import draw_spaces, write_figure
        from echox.eval.tasks.translation import TASKS, load_writers, run_tasks

        names, options = chosen(tasks, TASKS, "--tasks"), TranslationOptions(out, pairs.name, how, limit)
        tables, spaces = run_tasks(found, load_writers(models, device, dtype), names, options, beam)
        if spaces:
            write_figure(out / "spaces.svg", lambda: draw_spaces(spaces, typer.echo), typer.echo)
        _show(tables)
        return
    hearer = load_judge(judge, device, judge_window, language)
    hears = load_judge(cascade, device, FULL_WINDOW, source_language, translates=True) if cascade else None
    how |= {"unit_encoder": unit_encoder, "language": language}
    how |= {"cascade": hears.name, "voice": marks_of(["mini"])} if hears else {}
    options = TranslationOptions(out, pairs.name, how, limit)
    _show(run_translation(found, load_arms(models, hears, device, dtype, beam, unit_encoder), hearer, options))


@app.command()
def speech(
    results: Annotated[list[Path], typer.Argument(help="Folder or results.jsonl of `echox eval qa` with spoken arms.")],
    networks: Annotated[str, typer.Option(help="dnsmos, distillmos, speaker_similarity.")] = "dnsmos,distillmos",
    voice: Annotated[Path | None, typer.Option(help="Recording of the voice that answers should have.")] = None,
    reference: Annotated[str, typer.Option(help="Voice that says the same texts: hibari, flite or piper.")] = "",
    judge: JudgeName = "",
    judge_window: Window = 15,
    joins: Annotated[int, typer.Option(min=0, help="Stream so many answers and look where their pieces meet.")] = 0,
    model: Model = "mini",
    out: Out = Path("report"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N answers of every arm.")] = None,
    device: Device = "auto",
    llm: Llm = None,
) -> None:
    """Print opinion scores, word errors and signal checks of spoken answers, beside a reference voice if there is one."""
    from echox.eval.model_under_test import ModelChoice, load_subject
    from echox.eval.tasks.speech import ReferenceVoice, run_joins, run_speech

    beside = ReferenceVoice.load(reference, judge, judge_window) if reference else None
    tables = run_speech(results, networks, voice, out, typer.echo, beside, limit)
    if joins:
        subject, name = load_subject(ModelChoice(model, "", device, llm))
        tables += run_joins(subject, name, results, joins, out)
    _show(tables)


@app.command()
def ladder(
    texts: Annotated[Path, typer.Argument(help="JSONL with id and text, such as `echox prepare texts` writes.")],
    field: Annotated[str, typer.Option(help="The field that is said.")] = "text",
    reference: Annotated[str, typer.Option(help="The voice that the model learned from.")] = "hibari",
    judge: JudgeName = "",
    judge_window: Window = 15,
    model: Model = "mini",
    out: Out = Path("report"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N texts.")] = None,
    device: Device = "auto",
    llm: Llm = None,
) -> None:
    """Print where words are lost on the way from a text to its speech: cutting, units, durations, T2C."""
    from echox.eval.model_under_test import ModelChoice, load_subject
    from echox.eval.tasks.ladder import Ladder, read_texts, run_ladder
    from echox.eval.tasks.speech import ReferenceVoice

    found = read_texts(texts, field)
    beside = ReferenceVoice.load(reference, judge, judge_window)
    subject, name = load_subject(ModelChoice(model, "", device, llm))
    ladder = Ladder.load(subject, beside.voice)
    _show(run_ladder(found, ladder, beside, {"model": name, "questions": texts.name}, out, limit))


@app.command()
def latency(
    questions: Questions = None,
    audio_dir: AudioDir = None,
    suite: Suite = "",
    data: Data = None,
    form: Format = "",
    model: Model = "mini",
    endpoint: Endpoint = "",
    out: Out = Path("report"),
    limit: Limit = 30,
    live: Live = False,
    device: Device = "auto",
    llm: Llm = None,
    system: Annotated[str, typer.Option(help="Instruction sent to an endpoint with every question.")] = "",
    timeout: Timeout = 120.0,
) -> None:
    """Print first-audio times, real-time factor and underruns of streamed answers."""
    from echox.eval.boards.sets import load_questions
    from echox.eval.model_under_test import ModelChoice, load_subject
    from echox.eval.questions import take
    from echox.eval.tasks.latency import run_latency

    _check_one_set(questions, suite)
    items, _ = load_questions(questions, audio_dir, suite, data, True, form)
    subject, name = load_subject(ModelChoice(model, endpoint, device, llm, timeout, system=system))
    _show(run_latency(subject, name, take(items, limit), out, live))


@app.command()
def load(
    recordings: Annotated[list[Path], typer.Argument(help="Questions: sound files, or folders of them.")],
    endpoint: Annotated[str, typer.Option(help="A server, http://host/v1.")] = "http://127.0.0.1:8000/v1",
    model: Model = "mini",
    key: Annotated[str, typer.Option(envvar="ECHOX_API_KEY", help="Its API key.")] = "",
    sessions: Annotated[int, typer.Option(min=1, help="Talkers at once.")] = 1,
    answers: Annotated[int, typer.Option(min=1, help="Answers in all.")] = 30,
    rate: Annotated[
        float, typer.Option(min=0, callback=finite, help="Instead, new talkers a second, each asking once.")
    ] = 0,
    think: Annotated[float, typer.Option(min=0, callback=finite, help="Seconds from answer to next question.")] = 1.0,
    live: Live = False,
    limit: Annotated[int, typer.Option(min=1, help="Only the first N recordings.")] = 100,
    out: Out = Path("report"),
) -> None:
    """Talk to a server with many voices at once, print first audio, underruns and errors, and draw them."""
    from echox.eval.report.plots import draw_load, write_figure
    from echox.eval.results import read_results
    from echox.eval.tasks.load import Load, read_recordings, run_load

    sounds = read_recordings(recordings, limit)
    tables = run_load(Load(endpoint, model, sessions, answers, key, rate, think, live), sounds, out)
    write_figure(out / "load.svg", lambda: draw_load(read_results(out / "load.jsonl")[1]), typer.echo)
    _show(tables)


@app.command()
def gap(
    model: Model = "mini",
    wavs: Annotated[Path | None, typer.Option(help="Folder of <word>.wav; else the model says the words.")] = None,
    out: Out = Path("report"),
    device: Device = "auto",
    llm: Llm = None,
) -> None:
    """Print whether states lie together by sound or by meaning, and draw it."""
    from echox.eval.model_under_test import ModelChoice, load_subject
    from echox.eval.report.plots import draw_gap, write_figure
    from echox.eval.results import read_results
    from echox.eval.tasks.gap import read_sets, run_gap, word_speaker

    sets = read_sets()
    speaker, voice = word_speaker(wavs, sets)
    subject, name = load_subject(ModelChoice(model, "", device, llm))
    _show(run_gap(subject, name, sets, speaker(subject), out, voice))
    write_figure(out / "gap.svg", lambda: draw_gap(read_results(out / "gap.jsonl")[1]), typer.echo)


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(help="Folders that `echox eval` wrote, or files in them; shards are joined.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML file.")] = Path("report.html"),
) -> None:
    """Set runs side by side in one HTML file with plots and players, with what lies beside their files."""
    from echox.eval.report.page import read_beside, write_html

    _show(write_html(out, read_beside(results), typer.echo))
    typer.echo(f"report: {out}")


@app.command()
def export(
    results: Annotated[
        list[Path], typer.Argument(help="Folder or results.jsonl of `echox eval qa`; all shards of one run.")
    ],
    form: Annotated[str, typer.Option("--format", help="voicebench, ultraeval or uro.")],
    arm: Annotated[str, typer.Option(help="Which arm's answers.")] = "s2s",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the files.")] = Path("predictions"),
    name: Annotated[str, typer.Option(help="DATA-SPLIT for VoiceBench's file name.")] = "sd-qa-usa",
) -> None:
    """Write answers as the files that another harness scores."""
    from echox.eval.boards.predictions import export_items

    typer.echo(f"written: {export_items(results, form, arm, out, name)}")


def _check_one_set(questions: Path | None, suite: str) -> None:
    """Raise a usage error unless a file of questions or a suite is named, and not both."""
    if (questions is None) == (not suite):
        raise typer.BadParameter("give either --questions FILE or --suite NAME.")


def _show(tables: "Sequence[Table]") -> None:
    for table in tables:
        typer.echo(table.markdown())
