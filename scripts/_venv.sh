# Sourced by the scripts beside it, with $root set: sees that .venv holds this checkout, installed.
#
# 1. Where all is ready it costs one comparison (cmp) and starts no Python: it runs before every chat.
# 2. Where it is not, _venv.py makes it so, under a lock; all that is done here is to find a Python.
# 3. PYTHON names the Python to use. When it names another one than before, .venv is made anew.
# 4. POSIX only: dash, macOS's sh and busybox run this.

# venv chat|dev: chat and what it needs, or the tools for its tests as well.
venv() {
    venv_ready "$1" && return
    find_python
    # Not our standard input and output: both belong to the program that runs afterwards.
    "$python" "$root/scripts/_venv.py" "$root" "$1" </dev/null >&2
}

# The path is part of the stamp because a copied checkout would go on running the code of the first one,
# and pyproject.toml because it names what must be installed.
venv_ready() {
    [ -x "$root/.venv/bin/python" ] && [ -f "$root/.venv/manywire-made" ] || return
    { IFS= read -r made_in && IFS= read -r made_by; } <"$root/.venv/manywire-made" || return
    [ "$made_in" = "$root" ] && [ "${PYTHON:-$made_by}" = "$made_by" ] || return
    cmp -s "$root/pyproject.toml" "$root/.venv/manywire-$1.toml"
}

find_python() {
    new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
    if [ -n "${PYTHON-}" ]; then
        python=$PYTHON
        "$python" -c "$new_enough" 2>/dev/null && return
        echo "setup: PYTHON=$PYTHON does not run Python 3.11 or newer; unset it, or name another" >&2
        exit 1
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        "$python" -c "$new_enough" 2>/dev/null && return
    done
    # uv keeps its Pythons out of PATH.
    python=$(uv python find '>=3.11' 2>/dev/null) && return
    echo "setup: no Python 3.11 or newer on PATH; install one, or name it: PYTHON=/path/to/python $0" >&2
    exit 1
}
