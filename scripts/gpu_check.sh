#!/usr/bin/env bash
# What a machine with a GPU is to show, section by section, the most important first; `--help` says more.
# Needs nvcc and a Python with torch (CUDA), transformers, msgspec, setuptools, pytest and hypothesis; no network.
#   PYTHON   the interpreter (default python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" scripts/gpu_check.py "$@"
