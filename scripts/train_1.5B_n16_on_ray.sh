#!/usr/bin/env bash
# AReaL's 1.5B run (experiments/areal/1.5b-*.yaml, by MAX_LEN) on a Ray cluster of 16 nodes with 8 GPUs each.
#   bash scripts/train_1.5B_n16_on_ray.sh MODEL DATA ID2INFO MAX_LEN [key.path=value ...] [--dry-run]
#   PYTHON   the interpreter, the same on every node (default .venv's)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${4:?give MODEL DATA ID2INFO MAX_LEN}"

exec "${PYTHON:-$root/.venv/bin/python}" -m realrl.apps.quickstart ppo-math \
    --config "$root/experiments/areal/1.5b-8k.yaml" mode=ray allocation=gen.d64+d32p2 experiment="areal-1.5b-$4" \
    actor.model.path="$1" data.path="$2" data.solutions_path="$3" generation.max_new_tokens="$4" \
    max_tokens_per_microbatch="$(($4 + 3072))" "${@:5}"
