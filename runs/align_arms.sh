#!/usr/bin/env bash
# The table of S-Align's arms: one stem (recognition and text translation, in which all arms are alike), and from it the same updates
# of every arm, alignment on from the first to the last (docs/align.md); run it again to resume. After runs/align.sh.
#   ARMS="none ..."   SEEDS="0 1 2"   STEM=n updates of the stem   STEPS=n of each arm   MORE="key=value ..." for all
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=out/align
ARMS=${ARMS:-none reversal s_align s_align_strong s_align_mix h_align shuffled h_align_shuffled frozen}
SEEDS=${SEEDS:-0}
STEPS=${STEPS:-600}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
train() { "$PYTHON" -m echox train "$@"; }

train recipes/align/none.yaml out="$OUT/stem" train.steps="${STEM:-400}" schedule.shrink_from=1000000 schedule.translate_from=1000000
common=(start="$OUT/stem/final" train.steps="$STEPS" train.optim.warmup_steps=60 "schedule.fall=[$STEPS,$((STEPS + 1))]")
for part in encoders shrink translate mixing; do
  common+=("schedule.${part}_from=0")
done
models=(--model "$OUT/models/specialist")
for seed in $SEEDS; do
  for arm in $ARMS; do
    name="$arm-$seed"
    train "recipes/align/$arm.yaml" seed="$seed" out="$OUT/arms/$name" "${common[@]}" ${MORE:-}
    [ -d "$OUT/arms/models/$name" ] ||
      train recipes/align/pack.yaml out="$OUT/arms/models/$name" translator="$OUT/arms/$name/final"
    models+=(--model "$OUT/arms/models/$name")
  done
done
"$PYTHON" -m echox eval translation --pairs "$OUT/data/test/pairs.tsv" --tasks st,mt,asr,spaces "${models[@]}" --out "$OUT/report_arms"
