#!/usr/bin/env bash
# Nothing -> a model folder that answers, through every stage at toy size: four minutes of one core, no network.
# Usage: runs/debug.sh      (set PYTHON to choose an interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
rm -rf out/debug
"$PYTHON" -m echox.train.toy out/debug
for stage in encode units answers vocoder t2c teacher voice align listen s2t echo pack; do
  echo "== $stage"
  "$PYTHON" -m echox train "recipes/debug/$stage.yaml"
done
"$PYTHON" -m echox ask --typed "What is the capital of France?" --model out/debug/model -o out/debug/answer.wav --json
# The same parts with a listener for an ear, the LLM as it is, an echo decoder at its start, and int8 on disk.
"$PYTHON" -m echox train recipes/debug/pack.yaml out=out/debug/listening listener=out/debug/listen/final s2t=null \
  echo=null int8=true encoder=out/debug/whisper
# Textless translation: the same sentences in another word order stand for another language.
for stage in units_foreign textless translator encode_assistant normalise; do
  echo "== $stage"
  "$PYTHON" -m echox train "recipes/debug/$stage.yaml"
done
"$PYTHON" -m echox translate examples/question.wav --model out/debug/translator -o out/debug/translation.wav --json
"$PYTHON" -m echox ask --typed "Who is the king?" --model out/debug/listening -o out/debug/answer.wav --json
# A checkpoint in the released layout, random and tiny: converted, its hearing and its low-rank adapters trained on, then its echo decoder.
"$PYTHON" -m tests.released.tiny out/debug/released/EchoX-tiny
"$PYTHON" -m echox convert out/debug/released/EchoX-tiny -o out/debug/echox
"$PYTHON" -m echox train recipes/debug/s2t.yaml out=out/debug/echox_s2t llm=out/debug/echox/llm start=out/debug/echox/s2t lora.rank=2
"$PYTHON" -m echox train recipes/debug/echo.yaml out=out/debug/echox_echo llm=out/debug/echox/llm s2t=out/debug/echox_s2t/final \
  t2c=out/debug/echox/t2c max_unit_words=8
"$PYTHON" -m echox ask --typed "Who is the king?" --model out/debug/echox --text-only
# S-Align: text pairs, a text model, speech beside it, one folder of three tasks.
for stage in triples text_pairs vocabulary translate_text translate pack_joint; do
  echo "== $stage"
  "$PYTHON" -m echox train "recipes/debug/$stage.yaml"
done
"$PYTHON" -m echox translate examples/question.wav --to text --model out/debug/joint --json
"$PYTHON" -m echox translate --typed "the big red king" --to text --model out/debug/joint --json
"$PYTHON" -m echox transcribe examples/question.wav --model out/debug/joint
