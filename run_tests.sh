#!/usr/bin/env bash
# All checks: format, lint, types, tests.  --fast: format, lint and the fast tests, in a minute or a few.
# Other arguments go to pytest, which runs alone then (bash run_tests.sh -k midi).
# Does its own set-up the first time.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/setup.sh dev
if [ $# -eq 0 ] || [ "$1" = --fast ]; then
    "$PYTHON" -m ruff format --check .
    "$PYTHON" -m ruff check .
fi
# A process for each core, four at most: a test may need a gigabyte.  tests/conftest.py says what stays in one process.
SPREAD=(--numprocesses auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder)
if [ $# -eq 0 ]; then
    set -- "${SPREAD[@]}"
elif [ "$1" = --fast ]; then
    shift
    set -- "${SPREAD[@]}" -m "not slow" "$@"
fi
exec "$PYTHON" -m pytest "$@"
