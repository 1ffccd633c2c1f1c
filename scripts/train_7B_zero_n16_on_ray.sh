#!/usr/bin/env bash
# AReaL's 7B-Zero run (experiments/areal/7b-zero.yaml) on a Ray cluster of 16 nodes with 8 GPUs each.
#   bash scripts/train_7B_zero_n16_on_ray.sh MODEL DATA ID2INFO MAX_LEN [key.path=value ...] [--dry-run]
exec bash "$(dirname "${BASH_SOURCE[0]}")/areal_on_ray.sh" 7b-zero gen.d64+d16p4 "$@"
