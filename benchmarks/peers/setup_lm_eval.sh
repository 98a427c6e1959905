#!/usr/bin/env bash
# lm-evaluation-harness in a virtual environment of its own:  setup_lm_eval.sh DIR   makes DIR/lm_eval
# Its API models need no torch.
set -euo pipefail
dir=${1:?usage: setup_lm_eval.sh DIR}/lm_eval
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check 'lm_eval[api]'
"$dir/bin/python" -c 'from importlib.metadata import version; print("lm_eval", version("lm_eval"))'
