#!/usr/bin/env bash
# Every test that this machine can run, those of vLLM first, in its own environment. Arguments go to pytest, and leave
# vLLM out: bash scripts/test.sh tests/ops -x
#   REALRL_MATH_DATA   folder of maths problems as JSONL; tests that need it are skipped without
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Tests start hundreds of processes: what one of them has compiled, the others load.
unset PYTHONDONTWRITEBYTECODE

if (($# == 0)); then
    # In parallel with the environment: all of them mostly download and unpack.
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
# In parallel with what still downloads, or with the tests.
.venv/bin/python -m mypy &
types=$!
if (($# == 0)); then
    wait "$programs"
    if wait "$peer"; then
        # Several runs take place at a time: threads that compete for a core are far slower than one.
        OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest --quiet tests/engines/test_vllm.py tests/engines/test_contract.py || failed=1
    else
        echo "realrl: .venv-vllm could not be made, see above: tests/engines/test_vllm.py is left out"
    fi
    # A file's tests share what it makes, so they stay together; one core is enough for each.
    OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "not quiet" \
        --numprocesses 2 --dist loadfile --no-loadscope-reorder || failed=1
    # Named, so that nothing else is imported.
    mapfile -t quiet < <(grep --recursive --files-with-matches --include="test_*.py" "mark\.quiet" tests)
    set -- -m quiet "${quiet[@]}"
fi
wait "$types" || failed=1
.venv/bin/python -m pytest "$@" || failed=1
exit "${failed:-0}"
