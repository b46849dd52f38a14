"""Write docs/listen/index.html: recorded questions and the answers of a model, as players on a page.

python docs/listen/make.py RECORDING... [--model mini]      needs pip install openechox
"""

import argparse
import html
from pathlib import Path

import soundfile

from echox import SpeechAssistant
from echox.audio import SAMPLE_RATE, load_audio

HERE = Path(__file__).parent
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>mini, asked and answering</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
section {{ border-top: 1px solid #ccc; padding: 0.8rem 0; }}
audio {{ width: 100%; }}
q {{ font-style: italic; }}
</style>
<h1>mini, asked and answering</h1>
<p>{note}</p>
"""
SECTION = """<section>
<p>Asked ({who}), heard as <q>{heard}</q></p>
<audio controls preload="none" src="{question}"></audio>
<p>Answered <q>{text}</q></p>
<audio controls preload="none" src="{answer}"></audio>
</section>
"""


def main() -> None:
    """Ask every recording and write the page beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--model", default="mini")
    parser.add_argument(
        "--note", default="Questions in voices that never took part in training; nothing was chosen by ear."
    )
    parser.add_argument("--who", default="a synthetic voice that was never trained on")
    given = parser.parse_args()
    assistant = SpeechAssistant.load(given.model)
    page = HEAD.format(note=html.escape(given.note))
    for number, path in enumerate(given.recordings, start=1):
        reply = assistant.ask(path)
        names = [f"{number:02d}-question.ogg", f"{number:02d}-answer.ogg"]
        soundfile.write(HERE / names[0], load_audio(path), SAMPLE_RATE, format="OGG", subtype="VORBIS")
        soundfile.write(HERE / names[1], reply.audio, reply.sample_rate, format="OGG", subtype="VORBIS")
        words = {"heard": html.escape(reply.heard), "text": html.escape(reply.text), "who": html.escape(given.who)}
        page += SECTION.format(question=names[0], answer=names[1], **words)
    (HERE / "index.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
