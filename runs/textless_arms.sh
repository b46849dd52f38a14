#!/usr/bin/env bash
# The table of arms: the same data, updates and sizes, one change each (docs/textless.md); run it again to resume. After runs/textless.sh.
#   ARMS="main cm ..."   SEEDS="0 1 2"   STEPS=n of each   MORE="key=value ..." for all
#   STATES=1   the arms of phrases.yaml instead of small.yaml, from the weights of START
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=out/textless
ARMS=${ARMS:-main units cm cl both prompts alike bpe random text}
SEEDS=${SEEDS:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
echox() { "$PYTHON" -m echox "$@"; }
recipe=recipes/textless/small.yaml prompted="[4,5]"
common=(train.steps="${STEPS:-4000}")
packed=()
if [ -n "${STATES:-}" ]; then
  recipe=recipes/textless/phrases.yaml prompted="[1,2]"
  common+=(start="${START:-echox/mini-es-en/translator}" data.language="${LANGUAGE:-echox/mini-es-en/units}")
  common+=(data.train.source_frames="[$OUT/units_states/frames/spanish]" data.dev.source_frames="[$OUT/units_states/frames/spanish_dev]")
  common+=(tasks.source_units.language="$OUT/units_states" tasks.source_words.language="$OUT/units_states")
  echox train recipes/textless/units_source.yaml out="$OUT/units_states" states="$OUT/states" layer=6 more="[$OUT/data/spanish_dev]"
  packed=(encoder="$OUT/whisper-base" encoder_layer=6 units="${LANGUAGE:-echox/mini-es-en/units}")
fi

changes() { # of one arm
  case $1 in
    main) echo "uses=[]" ;;
    units) echo "uses=[source_units]" ;;
    cm) echo "uses=[source_units,source_words]" ;;
    cl) echo "uses=[source_units,target_words]" ;;
    both) echo "uses=null" ;;
    prompts) echo "uses=null model.prompts=$prompted prompts.weight=1.0" ;;
    alike) echo "uses=null model.prompts=$prompted model.prompts_alike=true" ;;
    bpe) echo "uses=null tasks.source_words.cut=bpe tasks.target_words.cut=bpe" ;;
    random) echo "uses=null tasks.source_words.cut=random tasks.target_words.cut=random" ;;
    text) echo "uses=null tasks.source_words.writes=text tasks.target_words.writes=text" ;;
    *) echo "unknown arm $1" >&2; exit 1 ;;
  esac
}
models=()
for seed in $SEEDS; do
  for arm in $ARMS; do
    name="$arm-$seed"
    given=$(changes "$arm")  # on its own, so that an unknown arm ends the script
    read -ra change <<< "$given"
    echox train "$recipe" out="$OUT/arms/$name" seed="$seed" "${common[@]}" "${change[@]}" ${MORE:-}
    [ -d "$OUT/packed/$name" ] ||
      echox train recipes/textless/pack.yaml out="$OUT/packed/$name" translator="$OUT/arms/$name/final" "${packed[@]}"
    models+=(--model "$OUT/packed/$name")
  done
done
echox eval translation --pairs "$OUT/test/pairs.tsv" "${models[@]}" --judge "${JUDGE:-whisper-base}" --out "$OUT/report_arms"
