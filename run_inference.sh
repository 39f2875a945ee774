#!/usr/bin/env bash
# Composes with the shipped model: bash run_inference.sh [any flag of inference.py, see --help]
# Does its own set-up the first time.
set -euo pipefail

SAVE_GIF="--save_gif --save_html" # how the first piece was composed, as an animation and as a page that plays; empty: none

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$root/scripts/setup.sh" ""
exec "$PYTHON" "$root/inference.py" $SAVE_GIF "$@"
