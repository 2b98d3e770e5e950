#!/bin/sh
# The bundled model of things, from its drawings to its figures: .ci/things.sh [FOLDER] (default: things-results).
# FOLDER/data has what it learns from, FOLDER/model what was trained, FOLDER/small that model with eight bits a weight,
# FOLDER/figures what was measured; NAME.log what each step said, steps.txt exit codes and seconds, as it goes on.
# What is there already is not made again: a run that was cut off goes on.
#
# PYTHON     with what pyproject.toml's [train] asks for (default: .venv/bin/python)
# PACKAGES   a folder with the drawings' packages (default: fetched)
# PICTURES   of 64 px (default: 110000)
# SCENES     share of pictures with two things (default: the recipe's)
# WORKERS    processes that draw and read (default: the processor's cores but one)
# CLIP       configuration of the text tower's training (default: clip_words)
# DECODER_FROM, PRIOR_FROM   scratch or base (default: scratch)
# CLIP_MINUTES, DECODER_MINUTES, PRIOR_MINUTES   of training (default: the configurations' own)
# JUDGE_MINUTES   of the judge's training (default: its 4,000 steps)
# BATCH      of all trainings, and DEVICE_TABLES=false for a CPU (default: the configurations' own)
# DEVICE     of the judge's training (default: cpu); the others take the best there is
# ROWS, N    what is measured, and prompts a row (default: thing scene, 200)
set -u
cd "$(dirname "$0")/.."
out=${1:-things-results}
python=${PYTHON:-.venv/bin/python}
workers=${WORKERS:-$(($(getconf _NPROCESSORS_ONLN) - 1))}
packages=${PACKAGES:+--packages $PACKAGES}
scenes=${SCENES:+--scenes $SCENES}
configs=unclip_core/recipes/things/configs
mkdir -p "$out/configs" "$out/figures"
scratch=$(mktemp -d)
beside=
trap 'for one in $beside; do pkill -P "$one"; done; rm -rf "$scratch"' EXIT # what runs beside would go on alone
ln -s "$PWD" "$scratch/unclip" # a clone's folder may have another name, and PYTHON none of the package
PYTHONPATH=$scratch${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH
began_all=$(date +%s)

# step NAME ARGUMENTS...: `unclip ARGUMENTS`, said and timed.
step() {
    name=$1
    shift
    began=$(date +%s)
    "$python" -m unclip "$@" >>"$out/$name.log" 2>&1
    code=$?
    now=$(date +%s)
    echo "$name: exit $code, $((now - began)) s, $((now - began_all)) s since the start" | tee -a "$out/steps.txt"
    return $code
}

# set_in FILE KEY VALUE: the key's line of a configuration gets that value, where there is one.
set_in() {
    [ -z "$3" ] || sed -i "s/^$2 = [^ ]*/$2 = $3/" "$1"
}

for part in "${CLIP:-clip_words}" decoder prior; do
    cp "$configs/$part.toml" "$out/configs/$part.toml"
    set_in "$out/configs/$part.toml" batch "${BATCH:-}"
    set_in "$out/configs/$part.toml" on_device "${DEVICE_TABLES:-}"
    set_in "$out/configs/$part.toml" workers "$workers"
done
set_in "$out/configs/${CLIP:-clip_words}.toml" minutes "${CLIP_MINUTES:-}"
set_in "$out/configs/decoder.toml" minutes "${DECODER_MINUTES:-}"
set_in "$out/configs/prior.toml" minutes "${PRIOR_MINUTES:-}"
set_in "$out/configs/decoder.toml" start "${DECODER_FROM:+\"$DECODER_FROM\"}"
set_in "$out/configs/prior.toml" start "${PRIOR_FROM:+\"$PRIOR_FROM\"}"
[ "${DECODER_FROM:-}" != base ] || sed -i '/^\[net\]/,/^$/d' "$out/configs/decoder.toml"
[ "${PRIOR_FROM:-}" != base ] || sed -i '/^\[net\]/,/^$/d' "$out/configs/prior.toml"

# shellcheck disable=SC2086  # the options are words
step data data things --output "$out/data" --small "${PICTURES:-110000}" --large 200 --captions 6 \
    --workers "$workers" $packages $scenes || exit
step judge data judge --output "$out/data" --device "${DEVICE:-cpu}" --minutes "${JUDGE_MINUTES:-0}" $packages &
judge=$!
beside=$judge
step clip train clip --data "$out/data/small" --config "$out/configs/${CLIP:-clip_words}.toml" --output "$out/model" || exit
step embed embed --data "$out/data/small" --output "$out/model/training/embeddings" --model "$out/model" \
    --workers "$workers" --batch 512 || exit
step decoder train decoder --data "$out/data/small" --config "$out/configs/decoder.toml" --output "$out/model" &
decoder=$!
beside="$judge $decoder"
step prior train prior --data "$out/data/small" --config "$out/configs/prior.toml" --output "$out/model" || exit
wait $decoder || exit
[ -e "$out/small" ] || step convert convert "$out/model" "$out/small" --dtype fp16 --int8 decoder prior || exit
wait $judge || exit
# shellcheck disable=SC2086
step evaluate evaluate things --folder "$out/small" --data "$out/data" --n "${N:-200}" --rows ${ROWS:-thing scene} \
    --output "$out/figures" --json $packages
