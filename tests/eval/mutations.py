"""Do the tests of the harness notice when it breaks? Breaks one line at a time in a copy and runs the tests on it.

    python tests/eval/mutations.py              every mutation, as the table of docs/evaluation.md; a minute or three
    python tests/eval/mutations.py player gap   those of some areas

Not a test itself: pytest does not collect it. Ends with 1 when a mutation goes unnoticed or its line is not there.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """One line of `file` turned into another; `tests` (test_<tests>.py) should notice."""

    area: str
    what: str
    file: str
    old: str
    new: str
    tests: str


def scorers(what: str, old: str, new: str, file: str = "eval/scorers/answers.py") -> Mutation:
    """Returns a mutation of the scorers or of the text rules they stand on."""
    return Mutation("scorers", what, file, old, new, "answers")


def player(what: str, old: str, new: str) -> Mutation:
    """Returns a mutation of the underrun player."""
    return Mutation("player", what, "eval/scorers/playback.py", old, new, "latency")


def qa(what: str, old: str, new: str, file: str = "eval/tasks/qa.py", tests: str = "qa") -> Mutation:
    """Returns a mutation of how answers are asked for and written down."""
    return Mutation("answers", what, file, old, new, tests)


def kept(what: str, old: str, new: str, file: str = "eval/tasks/spoken_set.py") -> Mutation:
    """Returns a mutation of spoken sets and of what is kept on them."""
    return Mutation("retention", what, file, old, new, "retention")


def ears(what: str, old: str, new: str, file: str = "eval/tasks/hearing.py") -> Mutation:
    """Returns a mutation of what a model is said to have heard."""
    return Mutation("hearing", what, file, old, new, "hearing")


RULES = "text/normalize.py"
SPAN = "words[i : i + len(run)] == run for run in runs if run for i in range(len(words) - len(run) + 1)"
MUTATIONS = (
    scorers("tokens keep their case", "token.lower() for token in _TOKEN", "token for token in _TOKEN", RULES),
    scorers("no NFD", '_TOKEN.findall(unicodedata.normalize("NFD", text))', "_TOKEN.findall(text)", RULES),
    scorers("marks end a run", r"[\p{L}\p{N}\p{M}]+|", r"[\p{L}\p{N}]+|", RULES),
    scorers("articles stay in the SQuAD rule", '_ARTICLES.sub(" ", bare)', "bare", RULES),
    scorers("the last span is not tried", "len(words) - len(run) + 1)", "len(words) - len(run))", RULES),
    scorers("substring instead of tokens", SPAN, "answer.lower() in text.lower() for answer in answers", RULES),
    scorers("any order, any gaps", SPAN, "set(run) <= set(words) for run in runs if run", RULES),
    scorers("an empty answer matches", "for run in runs if run for i", "for run in runs for i", RULES),
    scorers("only the first answer counts", "for answer in answers]", "for answer in answers[:1]]", RULES),
    scorers("a tie of votes is yes", "2 * yes > len(votes)", "2 * yes >= len(votes)"),
    scorers("the first verdict counts", "found[-1].lower()", "found[0].lower()"),
    scorers("ratings up to 9", r"([1-5](?:", r"([1-9](?:"),
    scorers("no letter is right", "float(letter is not None and letter in", "float(letter is None or letter in"),
    scorers("three votes with one seed", "chat(filled, seed)", "chat(filled, 0)"),
    player("lateness up to 1.5 samples is forgiven", "STALL_SAMPLES = 0.5", "STALL_SAMPLES = 1.5"),
    player("in time counts as late", "gap * sample_rate > STALL_SAMPLES", "gap * sample_rate > -0.5"),
    player(
        "a stall does not move what follows",
        "            dry_at = chunk.arrival\n        dry_at +=",
        "        dry_at +=",
    ),
    player(
        "buffered audio is forgotten",
        "dry_at += chunk.samples / sample_rate",
        "dry_at = chunk.arrival + chunk.samples / sample_rate",
    ),
    player("only the last stall is kept", "underruns + 1, stalled + gap", "underruns + 1, gap"),
    player("at most one underrun", "underruns + 1, stalled", "1, stalled"),
    player("the player starts at the question", "first = dry_at = chunk.arrival", "first, dry_at = 0.0, chunk.arrival"),
    player(
        "empty chunks start the player",
        "        if not chunk.samples:\n            continue\n        if not played:",
        "        if not played:",
    ),
    player("needed delay ignores what was played", "first - played / sample_rate", "first"),
    player(
        "needed delay of the last chunk only", "needed = max(needed, chunk.arrival", "needed = max(0.0, chunk.arrival"
    ),
    Mutation(
        "intervals", "unpaired draws", "eval/stats.py", "@ scores_NA for start", "@ scores_NA[::-1] for start", "stats"
    ),
    Mutation(
        "intervals",
        "difference turned round",
        "eval/stats.py",
        "m[..., 0] - m[..., 1]",
        "m[..., 1] - m[..., 0]",
        "stats",
    ),
    Mutation(
        "gap",
        "negatives are the words alike in neither",
        "eval/scorers/states.py",
        "states_WH[rotated(index_N4, relation)]",
        "states_WH[index_N4[:, 3]]",
        "gap",
    ),
    Mutation(
        "gap",
        "negatives come from other folds",
        "eval/scorers/states.py",
        "np.arange(len(index_N4)) % folds == fold)",
        "np.arange(len(index_N4)) // 3 % folds == fold)",
        "gap",
    ),
    Mutation("gap", "the text LLM keeps its adapters", "eval/tasks/gap.py", "str, not off)", "str, True)", "gap"),
    Mutation("gap", "the voice is not named", "eval/tasks/gap.py", "spoken by {voice if", "spoken by {'it' if", "gap"),
    Mutation(
        "gap",
        "words without states are stacked",
        "eval/scorers/states.py",
        "if all(found[word].shape == shape for word in item)",
        "",
        "gap",
    ),
    qa("s2t keeps the failure of s2s", 'if item and item["finish"] != "error":', "if item:"),
    qa("the LLM's finish is lost", "one.finish if one.finish in CUT else said.finish", "said.finish"),
    qa("the LLM's seconds are lost", "before = seconds + float(one.wall_seconds or 0.0)", "before = seconds"),
    qa("the recogniser's seconds are lost", "_say(run, own, hearing)", "_say(run, own)"),
    qa("--max-seconds does not reach the voice", 'if name == "max_seconds"}', "if False}"),
    qa("saying nothing fails", "if one.text.strip() else SILENCE", "if one.text.strip() else Failure('no text')"),
    qa("a dead server is asked a dozen times", 'error.startswith("endpoint:") and', "False and"),
    qa("three bad recordings stop a run", 'error.startswith("endpoint:") and not', "not"),
    qa("no path of the question's recording", "None if item.audio is None else str(item.audio)", "None"),
    qa(
        "silent answers flatter WER",
        '[item] if item.get("transcript") is not None',
        '[item] if item.get("signal")',
        "eval/tasks/spoken_answers.py",
        "report",
    ),
    qa("failed answers flatter WER", 'said.get(item["id"], "")', '""', "eval/tasks/spoken_answers.py", "report"),
    qa("a recording is not in the mark", ", mark(item.audio)]", "]", "eval/questions.py", "questions"),
    qa(
        "only the length of a recording is in the mark",
        "else sha256_of(path)",
        "else str(path.stat().st_size)",
        "eval/questions.py",
        "questions",
    ),
    Mutation(
        "files", "times of two machines share a file", "eval/tasks/latency.py", ", **timed_on(subject)}", "", "latency"
    ),
    Mutation(
        "files", "times of two devices share a file", "eval/model_under_test.py", ', "device": where}', "}", "latency"
    ),
    Mutation(
        "files",
        "a file given twice counts twice",
        "eval/results.py",
        "same[1][:] = known.values()",
        "same[1].extend(items)",
        "report",
    ),
    Mutation(
        "files",
        "contradictions are not refused",
        "eval/results.py",
        'if earlier | {"folder": ""} !=',
        'if False and earlier | {"folder": ""} !=',
        "report",
    ),
    Mutation(
        "files",
        "a report takes every file for qa's",
        "eval/report/page.py",
        'TABLES.get(str(settings.get("task", "qa")))',
        "qa_tables",
        "report",
    ),
    Mutation(
        "files",
        "an export leaves gaps",
        "eval/boards/predictions.py",
        "    if absent:\n",
        "    if False:\n",
        "eval_commands",
    ),
    Mutation(
        "files",
        "an export in the order of its files",
        "eval/boards/predictions.py",
        'sorted(chosen, key=lambda item: item["place"])',
        "list(chosen)",
        "eval_commands",
    ),
    Mutation(
        "servers",
        "the probe waits as long as a run",
        "eval/endpoint.py",
        "min(self._timeout, PROBE_SECONDS)",
        "self._timeout",
        "endpoint",
    ),
    Mutation("servers", "the probe tries again", "eval/endpoint.py", "retries=0,", "retries=2,", "endpoint"),
    Mutation(
        "servers",
        "a server must have a list of models",
        "eval/endpoint.py",
        'getattr(error.__cause__, "status_code", None) not in NO_LIST',
        "True",
        "endpoint",
    ),
    Mutation(
        "servers",
        "a stream may end anywhere",
        "eval/endpoint.py",
        '        raise EndpointError(f"{self.base_url} ended its',
        '        return\n        raise EndpointError(f"{self.base_url} ended its',
        "endpoint",
    ),
    Mutation(
        "servers",
        "a broken stream is no EndpointError",
        "eval/endpoint.py",
        "self._transport.HTTPError, OSError)",
        "OSError)",
        "endpoint",
    ),
    Mutation(
        "judges",
        "a language model may judge",
        "eval/judges.py",
        "if not {*writing.values(), *auto.MODEL_FOR_CTC_MAPPING_NAMES.values()} & set(made_for):",
        "if False:",
        "judges",
    ),
    Mutation(
        "judges",
        "the model's own ear is not told",
        "eval/judges.py",
        "own == whisper_size(judge)",
        "own == judge.name",
        "judges",
    ),
    Mutation(
        "tables",
        "the normaliser is not named",
        "eval/tables.py",
        "(normaliser: {settings.get('normaliser', '?')})",
        "",
        "report",
    ),
    Mutation(
        "tables",
        "offsets are held against nothing",
        "eval/tasks/spoken_answers.py",
        "offsets > DC_LIMIT",
        "offsets > 1",
        "report",
    ),
    Mutation(
        "tables",
        "long answers are left out",
        "eval/report/page.py",
        'content, kind = buffer.getvalue(), "flac"',
        "return ''",
        "report",
    ),
    Mutation(
        "tables",
        "what lies beside is not shown",
        "eval/report/page.py",
        "and path not in known:",
        "and False:",
        "report",
    ),
    Mutation(
        "tables",
        "runs are compared by place, not by id",
        "eval/report/page.py",
        'shared(sorted(other, key=lambda item: item["id"]), first)',
        "list(zip(other, first))",
        "report",
    ),
    Mutation(
        "tables",
        "speech without word errors",
        "eval/tasks/speech.py",
        "judge), errors, reference",
        "judge), reference",
        "eval_commands",
    ),
    Mutation(
        "judges",
        "nobody looks whose ear it is",
        "eval/tasks/qa.py",
        "    warn_if_own_ear(choice.folder, find_judge(options.judge) if judge else None, tell)\n",
        "",
        "eval_commands",
    ),
    Mutation(
        "servers",
        "arms it cannot have are run",
        "eval/tasks/qa.py",
        "and not (on_a_server and arm in NOT_ON_A_SERVER)",
        "",
        "eval_commands",
    ),
    Mutation(
        "servers",
        "the system prompt is no setting",
        "eval/tasks/qa.py",
        '    settings |= {"system": choice.system} if choice.system else {}\n',
        "",
        "eval_commands",
    ),
    Mutation(
        "scorers",
        "a suite brings no rule",
        "eval/boards/sets.py",
        "SUITES[suite].scorer if suite in SUITES else",
        "",
        "questions",
    ),
    kept(
        "every question counts once",
        "(float(count), scores_N2[kinds",
        "(1.0, scores_N2[kinds",
        "eval/tasks/qa_tables.py",
    ),
    kept("kept of all questions", "scores_N2[right, 0]", "scores_N2[:, 0]", "eval/tasks/qa_tables.py"),
    kept("T2T has its adapters on", '("t2t-off", "t2t")', '("t2t", "t2t-off")', "eval/tasks/qa_tables.py"),
    kept("typed answers of another model", '("model", "scorers", "seed"', '("scorers", "seed"', "eval/tasks/qa.py"),
    kept(
        "chosen in the order of the file",
        'key=lambda item: fraction("spoken-set", str(seed), item.id)',
        "key=lambda item: 0",
    ),
    kept("another level of noise", "snr_db=(10, 10)", "snr_db=(20, 20)"),
    kept("a set is whole before it is spoken", "    if all((folder /", "    if any((folder /"),
    ears("the ratio turned round", "stats.ratio(own, other)", "stats.ratio(other, own)", "eval/tasks/hearing.py"),
    ears("the recogniser labels the clips", "texts = labeller.transcribe", "texts = reference.transcribe"),
    ears("--only is not asked", "wanted is None or path.stem in wanted", "True"),
    ears("shards hear everything", "take(items, limit, shard)", "take(items, limit)"),
    Mutation(
        "voices",
        "the speaking rate upside down",
        "eval/tasks/speech.py",
        "stats.ratio(theirs, ours)",
        "stats.ratio(ours, theirs)",
        "reference_voice",
    ),
    Mutation(
        "voices",
        "any judge",
        "eval/tasks/speech.py",
        "if judges != reference.judge.name:",
        "if False:",
        "reference_voice",
    ),
    Mutation(
        "voices",
        "the last join is forgotten",
        "eval/tasks/speech.py",
        "for piece in pieces])[:-1]",
        "for piece in pieces])[:-2]",
        "reference_voice",
    ),
    Mutation(
        "scorers",
        "an empty --scorer is taken",
        "eval/scorers/answers.py",
        "    if not wanted:\n",
        "    if False:\n",
        "answers",
    ),
)


def first_failure(mutation: Mutation) -> str:
    """Returns the first test that fails on the broken copy, or why none did."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        leave = shutil.ignore_patterns("__pycache__", "mini", "*.safetensors")
        shutil.copytree(ROOT / "echox", copy / "echox", ignore=leave)
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=leave)
        shutil.copytree(ROOT / "recipes", copy / "recipes")
        shutil.copy(ROOT / "pyproject.toml", copy)
        broken = copy / "echox" / mutation.file
        text = broken.read_text(encoding="utf-8")
        if mutation.old not in text:
            return "THE LINE IS NOT THERE"
        broken.write_text(text.replace(mutation.old, mutation.new, 1), encoding="utf-8")
        (found,) = (copy / "tests" / "eval").rglob(f"test_{mutation.tests}.py")
        test = str(found.relative_to(copy))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--durations=0", test]
        environment = os.environ | {"PYTHONPATH": str(copy)}
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    failed = re.search(r"^(?:FAILED|ERROR) \S+?::(\w+)", done.stdout, re.MULTILINE)
    if failed:
        return f"`{failed.group(1)}`"
    return "UNNOTICED" if done.returncode == 0 else f"THE TESTS DID NOT RUN: {done.stdout[-200:]}"


def main() -> int:
    """Prints the table and returns how many mutations were not noticed."""
    chosen = [each for each in MUTATIONS if len(sys.argv) == 1 or each.area in sys.argv[1:]]
    print("| in | what was broken | failed |\n|---|---|---|")
    missed = 0
    for mutation in chosen:
        found = first_failure(mutation)
        missed += not found.startswith("`")
        print(f"| {mutation.area} | {mutation.what} | {found} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} noticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
