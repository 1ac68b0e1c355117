# Sourced by the other scripts: makes .venv beside this folder from nothing, with every
# version pinned, and leaves it alone while the pins have not changed.
# Needs Python 3.11 or newer; on Debian it installs python3-venv if that is missing.

KVORUM_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
KVORUM_VENV="${KVORUM_VENV:-$KVORUM_ROOT/.venv}"
KVORUM_PACKAGES="api kvorum kvstate raft watch"

kvorum_find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 /usr/bin/python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "kvorum: no Python 3.11 or newer found: install python3, or name one with PYTHON=/path/to/python." >&2
    return 1
}

kvorum_make_venv() {
    local python="$1"
    "$python" -m venv "$KVORUM_VENV" >/dev/null 2>&1 && return 0
    rm -rf "$KVORUM_VENV"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "kvorum: python3-venv is missing; installing it." >&2
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >&2 || return 1
        "$python" -m venv "$KVORUM_VENV" && return 0
    fi
    echo "kvorum: this Python cannot make virtual environments: 'apt-get install python3-venv' as root, then try again." >&2
    return 1
}

# kvorum_setup runtime|dev|bench: the environment with what a server needs, with what the tests need too,
# or with what plots need (benchmarks want both dev and bench).
kvorum_setup() {
    local wanted="$1" pins stamp python
    pins="$KVORUM_ROOT/requirements/$wanted.txt"
    stamp="$KVORUM_VENV/.kvorum-$wanted-$(cat "$pins" "$KVORUM_ROOT/pyproject.toml" | sha256sum | cut -c1-16)"
    [ -e "$stamp" ] && return 0
    if [ ! -x "$KVORUM_VENV/bin/python" ]; then
        python="$(kvorum_find_python)" || return 1
        echo "kvorum: making $KVORUM_VENV" >&2
        kvorum_make_venv "$python" || return 1
    fi
    echo "kvorum: installing the pinned dependencies ($wanted)" >&2
    "$KVORUM_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$pins" 2> >(grep -v '^WARNING: Location' >&2) || return 1
    "$KVORUM_VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e "$KVORUM_ROOT" 2> >(grep -v '^WARNING: Location' >&2) || return 1
    touch "$stamp"
}

# Where the compiled build of these very sources is, or would be.
kvorum_compiled() {
    local sources
    sources="$(cd "$KVORUM_ROOT" && find $KVORUM_PACKAGES -name '*.py' | sort | xargs cat setup.py requirements/compile.txt | sha256sum | cut -c1-16)"
    echo "$KVORUM_VENV/compiled-$sources"
}

# Lets what is started from here on run the compiled build, if there is one; not what lies in the working directory.
kvorum_use_compiled() {
    local compiled
    compiled="$(kvorum_compiled)"
    [ -d "$compiled" ] || return 1
    export PYTHONPATH="$compiled:$KVORUM_ROOT" PYTHONSAFEPATH=1
}

# kvorum_compile: makes the compiled build if there is none. Those of other sources stay: a server may run from there.
kvorum_compile() {
    local compiled unfinished
    compiled="$(kvorum_compiled)"
    [ -d "$compiled" ] && return 0
    if ! command -v "${CC:-cc}" >/dev/null; then
        echo "kvorum: no C compiler found: install one (Debian: gcc), or name it with CC=/path/to/cc." >&2
        return 1
    fi
    unfinished="$(mktemp -d "$KVORUM_VENV/compiling-XXXXXX")"
    echo "kvorum: compiling; this takes some minutes" >&2
    (cd "$KVORUM_ROOT" && cp -r $KVORUM_PACKAGES setup.py pyproject.toml README.md "$unfinished")
    if ! (cd "$unfinished" && KVORUM_COMPILE=1 "$KVORUM_VENV/bin/python" setup.py build_ext --inplace >build.log 2>&1); then
        tail -20 "$unfinished/build.log" >&2
        rm -rf "$unfinished"
        return 1
    fi
    rm -rf "$unfinished"/build "$unfinished"/build.log "$unfinished"/setup.py "$unfinished"/*.egg-info
    mv -T "$unfinished" "$compiled" 2>/dev/null || rm -rf "$unfinished" # somebody else has made it meanwhile
}

# What benchmarks run in: the compiled build, where it can be made.
kvorum_setup_measuring() {
    kvorum_setup dev
    kvorum_setup bench
    kvorum_compile && kvorum_use_compiled || echo "kvorum: measuring without the compiled build" >&2
}

# The load generator of the benchmarks, if it is missing and can be installed: they say so themselves if not.
kvorum_setup_wrk() {
    if ! command -v wrk >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq wrk; } >&2
    fi
}
