#!/bin/sh
# What a short session on a machine with a GPU is to measure: .ci/gpu.sh [FOLDER] adds to three files in FOLDER
# (default: gpu-results) as it goes, so that a session that ends early leaves what it has: results.txt (each step's
# output, JSON of the benchmarks', below a line "== NAME"), errors.txt (the same of what was said beside it) and
# steps.txt (exit codes and seconds). Steps come in the order of their worth, each with a limit of its own.
#
# PYTHON           with what pyproject.toml's [test] asks for (default: .venv/bin/python)
# MODELS           a folder to keep the benchmarks' random models in (default: a temporary one)
# DEVICE           cuda, cuda:1, xpu, mps; cpu rehearses (default: auto)
# SIZE             of the benchmarks' Karlo: full or small (default: full; rehearse with small)
# DTYPES, BATCHES  of the benchmarks (default: "bf16 fp16" and "1 4"); all steps but one take the first dtype
# LARGE            a larger batch, of a step of its own (default: 16)
# STEPS            of prior, decoder, upsampler (default: the size's own)
# TRAIN_BATCH, TRAIN_LARGE, TRAIN_STEPS, TRAIN_IMAGES, TRAIN_SIZE, OPTIMIZER
#                  of the training's (default: 256, 512, 40, 1024, small, auto)
# DEADLINE         seconds for all (default: 3600): what would begin later is left out
# PATIENCE         times as long as its limit each step may take (default: 1; a busy CPU that rehearses needs more)
# TESTS            what test-gpu runs (default: all that is marked so)
# ONLY             some of the steps' names (default: all)
set -u
began_all=$(date +%s)
cd "$(dirname "$0")/.."
out=${1:-gpu-results}
python=${PYTHON:-.venv/bin/python}
device=${DEVICE:-auto}
size=${SIZE:-full}
deadline=${DEADLINE:-3600}
batches=${BATCHES:-1 4}
set -- ${DTYPES:-bf16 fp16}
dtype=$1
shift
steps=${STEPS:+--stage-steps $STEPS}
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
models=${MODELS:-$scratch/models}
ln -s "$PWD" "$scratch/unclip" # a clone's folder may have another name, and PYTHON none of the package
PYTHONPATH=$scratch${PYTHONPATH:+:$PYTHONPATH}
UNCLIP_GPU_TEST_DEVICE=$device
export PYTHONPATH UNCLIP_GPU_TEST_DEVICE

# wanted NAME: whether that step is asked for, and there is time to begin it.
wanted() {
    case " ${ONLY:-$1} " in *" $1 "*) ;; *) return 1 ;; esac
    left=$((deadline - $(date +%s) + began_all))
    [ "$left" -ge 10 ] && return
    echo "$1: left out, $left s before the deadline" | tee -a "$out/steps.txt"
    return 1
}

# step NAME SECONDS COMMAND...: runs it for so many seconds at most.
step() {
    name=$1
    limit=$(($2 * ${PATIENCE:-1}))
    shift 2
    wanted "$name" || return
    [ "$limit" -le "$left" ] || limit=$left
    began=$(date +%s)
    echo "== $name" | tee -a "$out/results.txt" >>"$out/errors.txt"
    timeout "$limit" "$@" >>"$out/results.txt" 2>>"$out/errors.txt"
    echo "$name: exit code $?, $(($(date +%s) - began)) s" | tee -a "$out/steps.txt"
}

speed() {
    name=$1
    limit=$2
    shift 2
    # shellcheck disable=SC2086  # lists of words
    step "$name" "$limit" "$python" -m unclip bench speed --device "$device" --size "$size" --folder "$models" \
        --rounds 1 $steps --json "$@"
}

train() {
    name=$1
    limit=$2
    shift 2
    step "$name" "$limit" "$python" -m unclip bench train --device "$device" --steps "${TRAIN_STEPS:-40}" \
        --images "${TRAIN_IMAGES:-1024}" --size "${TRAIN_SIZE:-small}" --dtype "$dtype" \
        --optimizer "${OPTIMIZER:-auto}" --json "$@"
}

tests() {
    name=$1
    limit=$2
    shift 2
    step "$name" "$limit" "$python" -m pytest -p no:cacheprovider --maxfail=12 --durations=10 --tb=short -rfE "$@"
}

# While the smallest tests run, a processor writes the random model and reads diffusers from the disk once.
prepare="import sys; from pathlib import Path; from unclip.unclip_core.bench.speed.sizes import model_folder
model_folder(Path(sys.argv[1]), *sys.argv[2:]); import diffusers.pipelines.deprecated.unclip, transformers"
writing=
if wanted speed; then
    (
        began=$(date +%s)
        CUDA_VISIBLE_DEVICES='' "$python" -c "$prepare" "$models" "$size" "$dtype" >"$scratch/prepare" 2>&1
        echo "(beside the first step) model written: exit code $?, $(($(date +%s) - began)) s" >>"$out/steps.txt"
        cat "$scratch/prepare" >>"$out/errors.txt"
    ) &
    writing=$!
fi
tests smoke 45 -q -m gpu tests/unclip_core/nets tests/unclip_core/diffusion tests/unclip_core/weights
[ -z "$writing" ] || wait "$writing"
# shellcheck disable=SC2086  # lists of words
speed speed 180 --dtypes "$dtype" --batches $batches --profile --plain
train train 60 --batch "${TRAIN_BATCH:-256}"
for model in things shapes; do
    step "tiny-$model" 30 "$python" -m unclip bench tiny --device "$device" --model "$model" --dtype "$dtype" \
        --cold 0 --json
done
[ $# -eq 0 ] || speed speed-others 180 --dtypes "$@" --batches $batches
# shellcheck disable=SC2086
tests test-gpu 600 -q -m "gpu and not comfyui" ${TESTS:-tests/gpu tests/unclip_core tests/nodes}
speed speed-large 180 --dtypes "$dtype" --batches "${LARGE:-16}" --plain
train train-large 90 --batch "${TRAIN_LARGE:-512}" --ways channels_last
[ "$device" = cpu ] || speed speed-offload 120 --offload --dtypes "$dtype" --batches 1
[ "$device" = cpu ] || train train-compiled 180 --batch "${TRAIN_BATCH:-256}" --ways compiled
tests test-comfyui 1200 -q -m "gpu and comfyui" tests
