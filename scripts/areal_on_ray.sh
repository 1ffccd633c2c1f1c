#!/usr/bin/env bash
# What AReaL's scripts share: an experiment of experiments/areal, with an allocation of its size, on a Ray cluster.
#   bash scripts/areal_on_ray.sh EXPERIMENT ALLOCATION MODEL DATA ID2INFO MAX_LEN [key.path=value ...] [--dry-run]
#   PYTHON   the interpreter, the same on every node (default .venv's)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${6:?give MODEL DATA ID2INFO MAX_LEN}"

exec "${PYTHON:-$root/.venv/bin/python}" -m realrl.apps.quickstart ppo-math \
    --config "$root/experiments/areal/$1.yaml" mode=ray allocation="$2" experiment="areal-${1%-8k}-$6" \
    actor.model.path="$3" data.path="$4" data.solutions_path="$5" generation.max_new_tokens="$6" \
    max_tokens_per_microbatch="$(($6 + 3072))" "${@:7}"
