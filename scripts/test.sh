#!/usr/bin/env bash
# Every test that this machine can run, those of vLLM first, in its own environment. Arguments go to pytest, and leave
# vLLM out: bash scripts/test.sh tests/ops -x
#   REALRL_MATH_DATA   folder of maths problems as JSONL; tests that need it are skipped without
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/env.sh
if [[ -z ${REALRL_MATH_DATA:-} && -d ../shared/data/math ]]; then
    REALRL_MATH_DATA=$(cd ../shared/data/math && pwd)
    export REALRL_MATH_DATA
fi
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
if (($# == 0)); then
    bash scripts/slurm.sh
    # Downloads while vLLM's environment is made.
    bash scripts/chromium.sh &
    if bash scripts/peers.sh vllm; then
        .venv-vllm/bin/python -m pytest --quiet tests/engines/test_vllm.py
    else
        echo "realrl: .venv-vllm could not be made, see above: tests/engines/test_vllm.py is left out"
    fi
fi
wait
exec .venv/bin/python -m pytest "$@"
