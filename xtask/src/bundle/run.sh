#!/usr/bin/env bash
# Runs one step of the measurements, or all of them, on this machine.
#
#   ./run.sh device|models|gpu-tests|profile|check|tune|headline|baselines|alone|overhead|outputs|
#            faults|split|runtimes|uploads|report|all
#
# Each step runs under a time limit and leaves its output in the folder of results; a step that fails
# or runs out of time fails the script. These variables change what is done:
#
#   WORKLOAD   the workload file           (benches/workloads/edge24.toml)
#   SPLIT      the one of the split device (benches/workloads/edge-split.toml)
#   RESULTS    the folder of results       (results)
#   RUNS       runs of the headline        (8)
#   SECONDS_EACH  length of a run, and of each baseline, in seconds (60)
#   LOAD       share of the device that `tune` aims at, in percent  (91)
#   LIMIT      time limit of a step, in seconds                     (590)
#   DRIVER     has the steps of aegis-bench take the workload on another driver, for example host:
#              all from `tune` to `split`, and `all`. `profile` then measures for that driver too. What
#              is left asks for the driver of the file: `device`, `check`, `runtimes` and `uploads`.
set -u

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
workload=${WORKLOAD:-benches/workloads/edge24.toml}
split=${SPLIT:-benches/workloads/edge-split.toml}
results=${RESULTS:-results}
runs=${RUNS:-8}
seconds=${SECONDS_EACH:-60}
load=${LOAD:-91}
limit=${LIMIT:-590}
mkdir -p "$results" || exit 1

# The runtime: what the caller names, or what came with the bundle.
if [ -z "${ORT_DYLIB_PATH:-}" ] && [ -f lib/libonnxruntime.so ]; then
    export ORT_DYLIB_PATH="$PWD/lib/libonnxruntime.so"
fi

# Where the programs look for the runtime; without it they say so themselves, one after the other.
if [ -n "${1:-}" ] && [ "$1" != help ] && [ -z "${ORT_DYLIB_PATH:-}" ] &&
    ! compgen -G '.aegis/runtimes/onnxruntime-*/libonnxruntime.so' >/dev/null; then
    echo "run.sh: there is no ONNX Runtime in lib/, and ORT_DYLIB_PATH names none: what runs models" \
        "will fail; README.md says at its end which one is needed" >&2
fi

# CUDA's libraries: the loader finds what the system installed; what came as Python packages, or
# with the bundle, must be named to it.
folders="$PWD/lib"
for site in $(python3 -c 'import sys; print(*filter(None, sys.path), sep="\n")' 2>/dev/null); do
    for folder in "$site"/nvidia/*/lib; do
        [ -d "$folder" ] && folders="$folders:$folder"
    done
done
[ -d /usr/local/cuda/lib64 ] && folders="$folders:/usr/local/cuda/lib64"
export LD_LIBRARY_PATH="$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

# Runs a command as the step NAME: within the limit, its output shown and kept.
step() {
    local name=$1
    shift
    echo "== $name: $*"
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$results/$name.txt"
    local status=${PIPESTATUS[0]}
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
        echo "== $name: more than $limit s; stopped"
    fi
    echo "== $name: status $status"
    return "$status"
}

bench() {
    local name=$1 command=$2
    shift 2
    # shellcheck disable=SC2086 # Without a driver there is no word.
    step "$name" bin/aegis-bench --results "$results" ${DRIVER:+--driver "$DRIVER"} \
        "$command" "$@"
}

# Writes the models that these files name, where they are missing.
models_of() {
    local set folder
    for set in golden host24 edge24; do
        grep -q "models/$set/" "$@" || continue
        folder=.aegis/models/$set
        if [ -f "$folder/complete" ]; then
            continue
        fi
        step models bin/xtask models --set "$set" --out "$folder" || return
        touch "$folder/complete"
    done
}

models() { models_of "$workload"; }

# The same networks on several runtimes, in one pipeline: on the processor, and on the GPU if there is one.
runtimes() {
    local file status=0
    for file in benches/workloads/mixed.toml benches/workloads/mixed-cuda.toml; do
        models_of "$file" || return
        if [ ! -f "${file%.toml}.evidence.json" ]; then
            step "profile-$(basename "$file" .toml)" bin/aegis profile "$file" || { status=$?; continue; }
        fi
        step "check-$(basename "$file" .toml)" bin/aegis check "$file" || status=$?
        step "run-$(basename "$file" .toml)" bin/aegis run "$file" --for 10s || status=$?
        step "runtimes-$(basename "$file" .toml)" bin/aegis-bench --results "$results" \
            runtimes "$file" --runs 300 || status=$?
    done
    return "$status"
}

# The workload with look-ahead, and with inputs ahead as well, which is what is compared: both from one
# evidence, measured beside copies, and at periods at which every model is admitted. A commit with inputs
# ahead can lengthen the stage before, so more is charged for a dispatch.
uploads() {
    models || return
    local stem=${workload%.toml} status=0 share name answer
    sed -e '/^\[scheduler\]$/a look_ahead = true\nuploads_ahead = true' \
        -e 's/^dispatch = .*/dispatch = "100us"/' "$workload" >"$stem-uploads.toml" || return
    if [ ! -f "$stem-uploads.evidence.json" ]; then
        step profile-uploads bin/aegis profile "$stem-uploads.toml" || return
    fi
    for share in 88 85 82 79 76 73 70; do
        bin/aegis-bench tune "$stem-uploads.toml" --load "$share" \
            --write "$stem-uploads-ahead.toml" >"$results/tune-uploads.txt" || return
        sed '/^uploads_ahead/d' "$stem-uploads-ahead.toml" >"$stem-look-ahead.toml" &&
            cp "$stem-uploads.evidence.json" "$stem-look-ahead.evidence.json" || return
        bin/aegis check "$stem-uploads-ahead.toml" >"$results/check-uploads-ahead.txt" 2>&1
        answer=$?
        case $answer in
        0) break ;;
        1) echo "== uploads: not every model is admitted at $share % of the device's time" ;;
        *)
            cat "$results/check-uploads-ahead.txt"
            echo "== uploads: check failed with status $answer; stopped"
            return "$answer"
            ;;
        esac
    done
    if [ "$answer" -ne 0 ]; then
        cat "$results/check-uploads-ahead.txt"
        echo "== uploads: not every model is admitted at any of these shares; nothing was compared"
        return 1
    fi
    tail -1 "$results/tune-uploads.txt"
    for name in look-ahead uploads-ahead; do
        step "check-$name" bin/aegis check "$stem-$name.toml" || status=$?
        step "headline-$name" bin/aegis-bench --results "$results/$name" headline \
            "$stem-$name.toml" --for "${seconds}s" --runs "$runs" || status=$?
    done
    return "$status"
}

# The head of this file, up to where its commands begin.
usage() { sed -n '2,/^set -u$/{/^set -u$/d;p}' run.sh; }

# Says of a step that asks for the driver of the file that DRIVER changes nothing about it.
fixed_driver() {
    [ -z "${DRIVER:-}" ] ||
        echo "run.sh: DRIVER=$DRIVER does not change the step $1, which takes the driver of the file;" \
            "name a WORKLOAD of that driver, such as benches/workloads/edge24-host.toml" >&2
}

run() {
    case $1 in
    device | check | runtimes | uploads) fixed_driver "$1" ;;
    esac
    case $1 in
    device) models && step device bin/aegis device "$workload" ;;
    models) models ;;
    gpu-tests)
        step models-golden bin/xtask models --set golden --out .aegis/models/golden || return
        step gpu-tests bin/aegis-gpu-tests
        ;;
    runtimes) runtimes ;;
    uploads) uploads ;;
    profile)
        models || return
        if [ -n "${DRIVER:-}" ]; then
            bench profile profile "$workload"
        else
            step profile bin/aegis profile "$workload"
        fi
        ;;
    check) models && step check bin/aegis check "$workload" ;;
    tune) bench tune tune "$workload" --load "$load" ;;
    headline) models && bench headline headline "$workload" --for "${seconds}s" --runs "$runs" ;;
    baselines)
        models || return
        local kind status=0
        for kind in threads graphs priorities; do
            bench "baseline-$kind" baseline "$workload" --kind "$kind" --for "${seconds}s" || status=$?
        done
        return "$status"
        ;;
    alone) models && bench alone alone "$workload" --runs 1000 ;;
    overhead) models && bench overhead overhead "$workload" --runs 1000 ;;
    outputs) models && bench outputs outputs "$workload" ;;
    faults) models && bench faults faults "$workload" ;;
    split)
        models || return
        [ -f "${split%.toml}.evidence.json" ] || bench split-profile profile "$split" || return
        bench split split "$split" --for "${seconds}s"
        ;;
    report) step report bin/aegis-bench --results "$results" report ;;
    all)
        local name failed=0 beside=
        compgen -G '.aegis/runtimes/tvm-*' >/dev/null && beside=runtimes
        for name in device gpu-tests $beside; do
            run "$name" || failed=1
        done
        # The parts have no limit of their own in here: together they have that of a step for each.
        limit=$((limit * 10))
        models && bench all all "$workload" --split "$split" --for "${seconds}s" --runs "$runs" ||
            failed=1
        return "$failed"
        ;;
    help)
        usage
        return 2
        ;;
    *)
        echo "run.sh: there is no step $1" >&2
        usage
        return 2
        ;;
    esac
}

run "${1:-help}"
