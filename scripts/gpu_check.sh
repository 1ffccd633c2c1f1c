#!/usr/bin/env bash
# Builds the CUDA kernels in place, runs the tests that need a GPU, says how each went, and times the kernels,
# the engine and, with two GPUs or more, whole reallocations over NCCL. Arguments go to pytest.
# Needs nvcc and a Python with torch (CUDA), megatron-core, transformers, msgspec, setuptools, pytest and
# hypothesis; no network.
#   PYTHON   the interpreter (default python3)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

REALRL_CUDA=1 "$python" setup.py --quiet build_ext --inplace
"$python" - <<'EOF'
import platform
import subprocess

import torch

if not torch.cuda.is_available():
    raise SystemExit("realrl: error: torch sees no CUDA device")
compiler = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
rows = {
    "device": torch.cuda.get_device_name(),
    "capability": ".".join(map(str, torch.cuda.get_device_capability())),
    "torch": f"{torch.__version__} (CUDA {torch.version.cuda})",
    "nvcc": compiler.split("release ")[1].split(",")[0],
    "python": platform.python_version(),
}
for name, value in rows.items():
    print(f"{name:12}{value}")
EOF
"$python" -m pytest -m gpu --verbose --durations=0 -p no:cacheprovider tests/gpu "$@"
"$python" -m realrl.apps.bench boxes --device cuda
"$python" -m realrl.apps.bench attention --device cuda
"$python" -m realrl.apps.bench logprobs --device cuda
model=(--model random-qwen2-1.5b --device cuda --rounds 2)
"$python" -m realrl.apps.bench train "${model[@]}" --prompts 4 --tokens 8192 --microbatch-tokens 16384
"$python" -m realrl.apps.bench generate "${model[@]}" --prompts 8 --prompt-tokens 512 --new-tokens 512 --cache-mib 20480
gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())')
if ((gpus >= 4)); then
    "$python" -m realrl.apps.bench realloc --device cuda --workers 4 --rounds 3
elif ((gpus >= 2)); then
    "$python" -m realrl.apps.bench realloc --device cuda --workers 2 --rounds 3 --pairs t2:d2,p2:t2,t2:p2,d2:t2
fi
