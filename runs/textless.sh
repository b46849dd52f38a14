#!/usr/bin/env bash
# Public Spanish-English sentences -> voices -> units -> unit languages -> a textless translator -> ASR-BLEU; run it again to resume.
#   TATOEBA=file     spa-eng.zip; otherwise it is downloaded (CC BY 2.0)
#   KOKORO=folder    kokoro-v1.0.int8.onnx, vocab.json, voices/: natural Spanish voices, also the held-out one
#   WHISPER=folder   whisper-base in transformers' layout: units of the Spanish side
#   JUDGE=name       recogniser that hears the translations (default whisper-base, CTranslate2)
#   SENTENCES=n      how many pairs are spoken (default: all)
#   LONGEST=n        words of the longest sentences (default: 14)
#   MEASURED=n       words of the longest held-out ones (default: as many)
#   STATES=1         read states of the frozen Whisper instead of filterbanks: phrases.yaml, meant with SENTENCES=60000 LONGEST=9 MEASURED=6
# Needs: pip install "openechox[prepare,eval]"; apt-get install espeak-ng
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
OUT=out/textless
DATA=$OUT/data
mkdir -p "$OUT/sources"
if [ -n "${TATOEBA:-}" ]; then
  cp -n "$TATOEBA" "$OUT/sources/spa-eng.zip" || true
elif [ ! -f "$OUT/sources/spa-eng.zip" ]; then
  curl -fL -A Mozilla/5.0 https://www.manythings.org/anki/spa-eng.zip -o "$OUT/sources/spa-eng.zip"
fi
ln -sfn "$(realpath "${WHISPER:?a folder of whisper-base in the layout of transformers}")" "$OUT/whisper-base"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
echox() { "$PYTHON" -m echox "$@"; }

echox train recipes/textless/pairs.yaml "words=[2,${MEASURED:-${LONGEST:-14}}]" "spoken_words=[2,${LONGEST:-14}]"
if [ -n "${SENTENCES:-}" ]; then
  head -n "$SENTENCES" "$OUT/texts/spoken.jsonl" > "$OUT/texts/some.jsonl" && mv "$OUT/texts/some.jsonl" "$OUT/texts/spoken.jsonl"
fi
speak() { echox prepare speak recipes/textless/data.yaml "$1" --texts "$OUT/texts" --out "$DATA" --kokoro "${KOKORO:?}" --shard "$2"; }
corpora="english_dev english_test spanish_dev spanish_test english spanish"
[ -n "${STATES:-}" ] || corpora="$corpora spanish_natural"
for corpus in $corpora; do
  speak "$corpus" 0/2 &
  speak "$corpus" 1/2
  wait $!
done
echox prepare pair-table "$DATA/spanish_test" "$DATA/english_test" --out "$OUT/test"
echox train recipes/textless/units.yaml
if [ -n "${STATES:-}" ]; then
  echox train recipes/textless/encode.yaml
  echox train recipes/textless/phrases.yaml
  echox train recipes/textless/pack.yaml translator="$OUT/phrases/final" encoder="$OUT/whisper-base" encoder_layer=6 int8=true least_evidence=0.9
else
  echox train recipes/textless/units_source.yaml
  echox train recipes/textless/small.yaml
  echox train recipes/textless/prompts.yaml
  echox train recipes/textless/pack.yaml
fi
echox eval translation --pairs "$OUT/test/pairs.tsv" --model "$OUT/mini-es-en" --judge "${JUDGE:-whisper-base}" \
  --cascade "${JUDGE:-whisper-base}" --out "$OUT/report"
