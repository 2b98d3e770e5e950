#!/bin/sh
# What a short session on a machine with a GPU is to measure: .ci/gpu.sh [FOLDER] writes into FOLDER (default:
# gpu-results) as it goes, so that a session that ends early leaves what it has. Each step has a limit of its own.
#
# PYTHON           with what pyproject.toml's [test] asks for (default: .venv/bin/python)
# MODELS           a folder to keep the benchmarks' random models in (default: a temporary one)
# DEVICE           cuda, cuda:1, xpu, mps; cpu rehearses (default: auto)
# SIZE             of the benchmarks' Karlo: full or small (default: full; rehearse with small)
# DTYPES, BATCHES  of the benchmarks (default: "bf16 fp16" and "1 4 16")
# STEPS            of prior, decoder, upsampler (default: the size's own)
# TRAIN_BATCH, TRAIN_STEPS, TRAIN_IMAGES, TRAIN_SIZE, OPTIMIZER of the training's (default: 256, 60, 2048, small, auto)
# LIMIT            seconds a step (default: 180)
# ONLY             some of the steps' names (default: all)
set -u
cd "$(dirname "$0")/.."
out=${1:-gpu-results}
python=${PYTHON:-.venv/bin/python}
device=${DEVICE:-auto}
limit=${LIMIT:-180}
dtypes=${DTYPES:-bf16 fp16}
batches=${BATCHES:-1 4 16}
steps=${STEPS:+--stage-steps $STEPS}
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
ln -s "$PWD" "$scratch/unclip" # a clone's folder may have another name, and PYTHON none of the package
PYTHONPATH=$scratch${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

# step NAME COMMAND...: its output goes to NAME.txt, errors to NAME.err, its time and exit code to steps.txt.
step() {
    name=$1
    shift
    case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
    began=$(date +%s)
    timeout "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.err"
    echo "$name: exit code $?, $(($(date +%s) - began)) s" | tee -a "$out/steps.txt"
}

speed() {
    name=$1
    shift
    # shellcheck disable=SC2086  # lists of words
    step "$name" "$python" -m unclip bench speed --device "$device" --size "${SIZE:-full}" \
        --folder "${MODELS:-$scratch/models}" --rounds 1 $steps --json "$@"
}

UNCLIP_GPU_TEST_DEVICE=$device
export UNCLIP_GPU_TEST_DEVICE
step test-gpu "$python" -m pytest -q --maxfail=12 -m "gpu and not comfyui" --durations=10 tests
set -- $dtypes
speed speed-first --dtypes "$1" --batches 1 --profile
speed speed --dtypes $dtypes --batches $batches
speed speed-profile --dtypes "$1" --batches 1 4 --profile
[ "$device" = cpu ] || speed speed-offload --offload --dtypes "$1" --batches 1
for model in things shapes; do
    step "tiny-$model" "$python" -m unclip bench tiny --device "$device" --model "$model" --dtype "$1" --json
done
training="--device $device --batch ${TRAIN_BATCH:-256} --steps ${TRAIN_STEPS:-60} --images ${TRAIN_IMAGES:-2048}"
training="$training --size ${TRAIN_SIZE:-small} --dtype $1 --optimizer ${OPTIMIZER:-auto} --json"
# shellcheck disable=SC2086  # lists of words
step train "$python" -m unclip bench train $training
# shellcheck disable=SC2086
[ "$device" = cpu ] || step train-compiled "$python" -m unclip bench train $training --ways compiled
step test-comfyui "$python" -m pytest -q -m "gpu and comfyui" --durations=10 tests
