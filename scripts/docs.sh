#!/usr/bin/env bash
# Builds the documentation site into build/site, or serves it at http://127.0.0.1:8000 while you write.
#   bash scripts/docs.sh           build; a broken link, anchor or reference is an error
#   bash scripts/docs.sh serve     serve; pages are rebuilt when a file changes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=${1:-build}
if [[ $# -gt 1 || ($command != build && $command != serve) ]]; then
    echo "realrl: error: expected build or serve: bash scripts/docs.sh serve" >&2
    exit 2
fi
bash scripts/env.sh
exec .venv/bin/python -m mkdocs "$command"
