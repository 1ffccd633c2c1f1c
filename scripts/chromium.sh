#!/usr/bin/env bash
# Installs Chromium for tests/apps/report/test_browser.py, which opens reports in it: on Debian, as root.
# Elsewhere it says so and leaves it at that: the tests are skipped then.
set -euo pipefail

if type -P chromium chromium-browser google-chrome >/dev/null; then
    exit 0
fi
left_out="tests/apps/report/test_browser.py is left out"
if ((EUID)) || ! command -v apt-get >/dev/null; then
    echo "realrl: Chromium is not here, and installing it takes root and apt-get: $left_out"
    exit 0
fi
install=(apt-get install --quiet=2 --yes --no-install-recommends chromium)
export DEBIAN_FRONTEND=noninteractive
if ! "${install[@]}" &>/dev/null && ! { apt-get update --quiet=2 && "${install[@]}"; } >/dev/null; then
    echo "realrl: Chromium could not be installed, see above: $left_out"
fi
