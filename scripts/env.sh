#!/usr/bin/env bash
# Makes .venv in the project's folder: Python packages and compiled kernels. At once if nothing changed.
#   PYTHON       the interpreter to make it with (3.10 to 3.13; default python3)
#   TORCH        the torch to install (default torch==2.13.0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
torch=${TORCH:-torch==2.13.0}
stamp=.venv/realrl.stamp

fail() {
    echo "realrl: error: $*" >&2
    exit 2
}

# All that the environment is made of: a change of any of it makes it anew.
fingerprint() {
    { echo "$PWD" "$torch" "${REALRL_CUDA:-}"; "$python" --version; cat scripts/env.sh setup.py pyproject.toml csrc/*.h csrc/*/*; } \
        | sha256sum | cut -d' ' -f1
}

command -v "$python" >/dev/null || fail "$python was not found; set PYTHON to a Python 3.10 to 3.13"
wanted=$(fingerprint)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && compgen -G 'realrl/ops/_kernels.*' >/dev/null; then
    exit 0
fi

"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
    || fail "realrl needs Python 3.10 to 3.13, $python is $("$python" --version); set PYTHON to another"
command -v c++ >/dev/null || fail "no C++ compiler: install g++"

echo "realrl: making .venv (some minutes the first time)"
rm -f "$stamp"
"$python" -m venv --upgrade-deps .venv 2>/dev/null || "$python" -m venv .venv \
    || fail "$python -m venv failed: install the venv module (python3-venv on Debian)"
pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" "$torch" 'setuptools>=77' wheel 'pybind11>=2.13'
"${pip[@]}" --no-build-isolation --editable '.[dev,demo]'
echo "$wanted" >"$stamp"
