#!/usr/bin/env bash
# Makes .venv-trl or .venv-vllm in the project's folder: another system in the very versions of scripts/peers/*.txt,
# for the benchmarks; in .venv-vllm realrl can run too, and generate by vLLM. At once if nothing changed.
#   bash scripts/peers.sh trl|vllm
#   PYTHON       the interpreter to make it with (3.11 to 3.13; default python3)
#   TORCH        the torch to install (default torch==2.13.0; give pip an index that has its CPU build)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "realrl: error: $*" >&2
    exit 2
}

peer=${1-}
case $#$peer in
    1trl) check='from trl import GRPOTrainer' ;;
    1vllm) check='from vllm import LLM' ;;
    *) fail "expected one of trl, vllm: bash scripts/peers.sh trl" ;;
esac
python=${PYTHON:-python3}
torch=${TORCH:-torch==2.13.0}
lock=scripts/peers/$peer.txt
venv=.venv-$peer
stamp=$venv/realrl.stamp

command -v "$python" >/dev/null || fail "$python was not found; set PYTHON to a Python 3.11 to 3.13"
wanted=$({ echo "$PWD" "$torch"; "$python" --version; cat scripts/peers.sh "$lock"; } | sha256sum | cut -d' ' -f1)
if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
    exit 0
fi

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
    || fail "$peer needs Python 3.11 to 3.13, $python is $("$python" --version); set PYTHON to another"

echo "realrl: making $venv (2 GB, some minutes)"
rm -f "$stamp"
"$python" -m venv --clear "$venv" || fail "$python -m venv failed: install the venv module (python3-venv on Debian)"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" "$torch" || fail "pip could not install $torch: see above"
"${pip[@]}" --no-deps --requirement "$lock" || fail "pip could not install what $lock names: see above"
"$venv/bin/python" -c "$check" >/dev/null || fail "$peer was installed into $venv, but \"$check\" fails: see above"
echo "$wanted" >"$stamp"
