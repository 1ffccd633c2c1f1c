#!/usr/bin/env bash
# Every test that this machine can run, those of vLLM first, in its own environment. Arguments go to pytest, and leave
# vLLM out: bash scripts/test.sh tests/ops -x
#   REALRL_MATH_DATA   folder of maths problems as JSONL; tests that need it are skipped without
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# == 0)); then
    # Beside the environment: all of them mostly download and unpack.
    { bash scripts/slurm.sh && bash scripts/chromium.sh; } &
    programs=$!
    bash scripts/peers.sh vllm &
    peer=$!
fi
bash scripts/env.sh
if [[ -z ${REALRL_MATH_DATA:-} && -d ../shared/data/math ]]; then
    REALRL_MATH_DATA=$(cd ../shared/data/math && pwd)
    export REALRL_MATH_DATA
fi
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m codespell_lib
if (($# == 0)); then
    wait "$programs"
    if wait "$peer"; then
        .venv-vllm/bin/python -m pytest --quiet tests/engines/test_vllm.py
    else
        echo "realrl: .venv-vllm could not be made, see above: tests/engines/test_vllm.py is left out"
    fi
    # One core is enough for each of these, and no clock is in them; all others have the machine for themselves.
    beside=(tests/{algorithms,api,datasets,layouts,models,ops,parallel,planner,program,recipes,rehearsal})
    OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist worksteal "${beside[@]}" || failed=1
    set -- "${beside[@]/#/--ignore=}"
fi
.venv/bin/python -m pytest "$@"
exit "${failed:-0}"
