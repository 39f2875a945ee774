#!/usr/bin/env bash
# Opens the studio, a local page to compose in: bash run_studio.sh [any flag of `fractalgen studio`, see --help]
# Does its own set-up the first time.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$root/scripts/setup.sh" studio
exec "$PYTHON" -m fractalgen studio "$@"
