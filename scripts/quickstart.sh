#!/usr/bin/env bash
# The main job, from nothing: environment, kernels, demo model, then `ppo-math`.
# Arguments go to the run: bash scripts/quickstart.sh num_steps=5
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

bash "$root/scripts/env.sh"
"$root/.venv/bin/python" -m realrl.datasets.demo
exec "$root/.venv/bin/python" -m realrl.apps.quickstart --config "$root/experiments/sums/ppo-math.yaml" "$@"
