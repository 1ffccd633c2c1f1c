#!/usr/bin/env bash
# AReaL's 7B-Zero run (experiments/areal/7b-zero.yaml) on a Ray cluster of 16 nodes with 8 GPUs each.
#   bash scripts/train_7B_zero_n16_on_ray.sh MODEL DATA ID2INFO MAX_LEN [key.path=value ...] [--dry-run]
#   PYTHON   the interpreter, the same on every node (default .venv's)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${4:?give MODEL DATA ID2INFO MAX_LEN}"

exec "${PYTHON:-$root/.venv/bin/python}" -m realrl.apps.quickstart ppo-math \
    --config "$root/experiments/areal/7b-zero.yaml" mode=ray allocation=gen.d64+d16p4 experiment="areal-7b-zero-$4" \
    actor.model.path="$1" data.path="$2" data.solutions_path="$3" generation.max_new_tokens="$4" \
    max_tokens_per_microbatch="$(($4 + 3072))" "${@:5}"
