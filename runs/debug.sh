#!/usr/bin/env bash
# Nothing -> a model folder that answers, through every stage at toy size: about a minute on two cores, no network.
# Usage: runs/debug.sh      (set PYTHON to choose an interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
rm -rf out/debug
"$PYTHON" -m echox.train.toy out/debug
for stage in encode units answers vocoder teacher voice align s2t t2c echo pack; do
  echo "== $stage"
  "$PYTHON" -m echox.cli train "recipes/debug/$stage.yaml"
done
"$PYTHON" -m echox.cli ask --typed "What is the capital of France?" --model out/debug/model -o out/debug/answer.wav --json
