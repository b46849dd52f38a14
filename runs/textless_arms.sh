#!/usr/bin/env bash
# The table of arms: the same data, updates and sizes, one change each (docs/textless.md); run it again to resume. After runs/textless.sh.
#   ARMS="main cm ..."   SEEDS="0 1 2"   STEPS=n of each   MORE="key=value ..." for all
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=out/textless
ARMS=${ARMS:-main units cm cl both prompts alike bpe random text}
SEEDS=${SEEDS:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
echox() { "$PYTHON" -m echox.cli "$@"; }

changes() { # of one arm
  case $1 in
    main) echo "uses=[]" ;;
    units) echo "uses=[source_units]" ;;
    cm) echo "uses=[source_units,source_words]" ;;
    cl) echo "uses=[source_units,target_words]" ;;
    both) echo "" ;;
    prompts) echo "model.prompts=[4,5] prompts.weight=1.0" ;;
    alike) echo "model.prompts=[4,5] model.prompts_alike=true" ;;
    bpe) echo "tasks.source_words.cut=bpe tasks.target_words.cut=bpe" ;;
    random) echo "tasks.source_words.cut=random tasks.target_words.cut=random" ;;
    text) echo "tasks.source_words.writes=text tasks.target_words.writes=text" ;;
    *) echo "unknown arm $1" >&2; exit 1 ;;
  esac
}
models=()
for seed in $SEEDS; do
  for arm in $ARMS; do
    name="$arm-$seed"
    read -ra change <<< "$(changes "$arm")"
    echox train recipes/textless/small.yaml out="$OUT/arms/$name" seed="$seed" train.steps="${STEPS:-4000}" "${change[@]}" ${MORE:-}
    [ -d "$OUT/packed/$name" ] || echox train recipes/textless/pack.yaml out="$OUT/packed/$name" translator="$OUT/arms/$name/final"
    models+=(--model "$OUT/packed/$name")
  done
done
echox eval translation --pairs "$OUT/test/pairs.tsv" "${models[@]}" --judge "${JUDGE:-whisper-base}" --out "$OUT/report_arms"
