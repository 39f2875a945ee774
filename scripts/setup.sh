# Sourced by run_inference.sh and run_tests.sh: `source scripts/setup.sh [EXTRA]` sets $PYTHON to a Python in which
# the project and the exact versions of constraints.txt are installed.  The first call makes .venv; a stamp with a hash
# of what was asked for lets later calls start at once.  FRACTALGEN_PYTHON=/path/to/python uses an environment of your
# own as it is.

fractalgen_setup() {
    local root extra="${1:-}" wanted stamp candidate
    if [ -n "${FRACTALGEN_PYTHON:-}" ]; then
        PYTHON="$FRACTALGEN_PYTHON"
        return
    fi
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    PYTHON="$root/.venv/bin/python"
    stamp="$root/.venv/fractalgen-setup"
    wanted="$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)"
    # The stamp file holds one line per set of extras; the developers' set includes the plain one.
    if [ -x "$PYTHON" ] && grep -qsxF -e "$wanted $extra" -e "$wanted dev" "$stamp"; then
        return
    fi

    if ! "$PYTHON" -c "" 2>/dev/null; then
        for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
            "$candidate" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && break
            candidate=""
        done
        if [ -z "$candidate" ]; then
            echo "setup: error: Python 3.11 or newer is needed, and none is on the PATH" >&2
            return 1
        fi
        if ! "$candidate" -m venv --clear "$root/.venv"; then
            echo "setup: error: '$candidate -m venv' failed (on Debian and Ubuntu: apt install python3-venv)" >&2
            return 1
        fi
    fi
    echo "Setting up .venv: only the first time, a minute or a few (PyTorch is large) ..." >&2
    # Python compiles modules when they are first imported, which most never are.
    local install=("$PYTHON" -m pip install --disable-pip-version-check --no-compile -c "$root/constraints.txt")
    if [ ! -t 2 ]; then install+=(-qq); fi  # pip's own progress is for people at a terminal
    # Without build isolation, the constrained setuptools serves the project's own (editable) build.
    "${install[@]}" setuptools >&2 &&
        "${install[@]}" --no-build-isolation -e "$root${extra:+[$extra]}" >&2 &&
        # Plays soundfonts.  Without what it depends on: a driver of loudspeakers, which is not for every machine.
        { [ "$extra" != dev ] || "${install[@]}" --no-deps tinysoundfont >&2; } &&
        echo "$wanted $extra" >>"$stamp"
}

fractalgen_setup "$@"
