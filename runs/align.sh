#!/usr/bin/env bash
# Nothing -> S-Align: text pairs, a text model, speech beside it under every arm, a folder of three tasks, and the table.
# Each stage resumes where it stopped: run it again after an interruption.
#   TATOEBA=file     spa-eng.zip of manythings.org/anki; otherwise it is downloaded
#   WHISPER=folder   Whisper tiny.en as a transformers folder; otherwise openai/whisper-tiny.en is fetched from the hub
#   KOKORO=folder    kokoro-v1.0.int8.onnx, vocab.json, voices/: the held-out voices of the test set
#   ARMS="..."       arms to train, by default none h_align s_align s_align_mix s_align_tokens; SEEDS="0 1 2" trains each so often
# Needs: pip install "openechox[prepare,train,eval]"; apt-get install flite
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=out/align
ARMS=${ARMS:-none h_align s_align s_align_mix s_align_tokens}
SEEDS=${SEEDS:-0}
mkdir -p "$OUT/sources"
train() { "$PYTHON" -m echox train "$@"; }

if [ ! -f "$OUT/sources/spa-eng.zip" ]; then
  if [ -n "${TATOEBA:-}" ]; then
    cp "$TATOEBA" "$OUT/sources/spa-eng.zip"
  else
    curl -fL -A Mozilla/5.0 https://www.manythings.org/anki/spa-eng.zip -o "$OUT/sources/spa-eng.zip"
  fi
fi
"$PYTHON" - "$OUT/whisper-tiny.en" "${WHISPER:-openai/whisper-tiny.en}" <<'PY'
import sys
from pathlib import Path

link, whisper = Path(sys.argv[1]), Path(sys.argv[2])
if not whisper.exists():
    from huggingface_hub import snapshot_download

    whisper = Path(snapshot_download(sys.argv[2]))
if not link.exists():
    link.symlink_to(whisper.resolve())
PY

train recipes/align/pairs.yaml
speak() { "$PYTHON" -m echox prepare speak recipes/align/data.yaml "$1" --texts "$OUT/texts" --out "$OUT/data" "${@:2}"; }
speak train
speak dev
speak test --kokoro "${KOKORO:?}"
"$PYTHON" - "$OUT" <<'PY'
import sys
from pathlib import Path

from echox.data.manifest import read_jsonl
from echox.files import write_text

out = Path(sys.argv[1])
translations = {row["id"]: row["translation"] for row in read_jsonl(out / "texts" / "test.jsonl")}
lines = ["id\taudio\ttarget_audio\tsource_text\ttarget_text"]
for row in read_jsonl(out / "data" / "test" / "manifest.jsonl"):
    lines.append("\t".join((row["id"], row["audio"], "", row["text"], translations[row["id"]])))
write_text(out / "data" / "test" / "pairs.tsv", "\n".join(lines) + "\n")
PY

train recipes/align/encode.yaml
train recipes/align/vocabulary.yaml
train recipes/align/text.yaml
train recipes/align/pack.yaml out="$OUT/models/specialist" translator="$OUT/text/final" "shares=''" encoder_layer=0
models=(--model "$OUT/models/specialist")
for seed in $SEEDS; do
  for arm in $ARMS; do
    train "recipes/align/$arm.yaml" seed="$seed" out="$OUT/$arm-$seed"
    train recipes/align/pack.yaml out="$OUT/models/$arm-$seed" translator="$OUT/$arm-$seed/final"
    models+=(--model "$OUT/models/$arm-$seed")
  done
done
"$PYTHON" -m echox eval translation --pairs "$OUT/data/test/pairs.tsv" --tasks st,mt,asr,cascade,spaces \
  "${models[@]}" --out "$OUT/report"
