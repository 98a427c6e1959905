#!/usr/bin/env bash
# inspect_ai in a virtual environment of its own:  setup_inspect_ai.sh DIR   makes DIR/inspect_ai
set -euo pipefail
dir=${1:?usage: setup_inspect_ai.sh DIR}/inspect_ai
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check inspect_ai openai uvloop
"$dir/bin/inspect" --version
