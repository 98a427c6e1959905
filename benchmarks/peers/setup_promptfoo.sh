#!/usr/bin/env bash
# promptfoo in a folder of its own (needs Node 20 or newer):  setup_promptfoo.sh DIR   makes DIR/promptfoo
set -euo pipefail
dir=${1:?usage: setup_promptfoo.sh DIR}/promptfoo
mkdir -p "$dir"
cd "$dir"
[[ -e package.json ]] || npm init --yes >/dev/null
npm install --no-audit --no-fund --loglevel error promptfoo
PROMPTFOO_DISABLE_UPDATE=1 PROMPTFOO_DISABLE_TELEMETRY=1 node_modules/.bin/promptfoo --version
