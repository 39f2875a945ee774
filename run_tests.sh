#!/usr/bin/env bash
# All checks: format, lint, types, tests.  With arguments: only pytest, which gets them (bash run_tests.sh -k midi).
# Does its own set-up the first time.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/setup.sh dev
if [ $# -eq 0 ]; then
    "$PYTHON" -m ruff format --check .
    "$PYTHON" -m ruff check .
    "$PYTHON" -m mypy
fi
exec "$PYTHON" -m pytest "$@"
