#!/usr/bin/env bash
# AReaL's 1.5B run (experiments/areal/1.5b-*.yaml, by MAX_LEN) on a Ray cluster of 16 nodes with 8 GPUs each.
#   bash scripts/train_1.5B_n16_on_ray.sh MODEL DATA ID2INFO MAX_LEN [key.path=value ...] [--dry-run]
exec bash "$(dirname "${BASH_SOURCE[0]}")/areal_on_ray.sh" 1.5b-8k gen.d64+d32p2 "$@"
