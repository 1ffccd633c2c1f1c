#!/usr/bin/env bash
# Installs SLURM and munge for tests/launch/test_slurm.py, which runs a cluster of its own: on Debian, as root.
# Elsewhere it says so and leaves it at that: the tests are skipped then.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

if type -P munged slurmctld slurmd sbatch >/dev/null; then
    exit 0
fi
if ((EUID)) || ! command -v apt-get >/dev/null; then
    echo "realrl: SLURM is not here, and installing it takes root and apt-get: tests/launch/test_slurm.py is left out"
    exit 0
fi
install=(apt-get install --quiet=2 --yes --no-install-recommends slurm-wlm munge)
export DEBIAN_FRONTEND=noninteractive
if ! "${install[@]}" &>/dev/null && ! { apt-get update --quiet=2 && "${install[@]}"; } >/dev/null; then
    echo "realrl: SLURM could not be installed, see above: tests/launch/test_slurm.py is left out"
fi
