# shellcheck shell=bash
# What tools/run, tools/test, tools/check and .ci/run share: sourced, never run.
#
#   set_up run COMMAND:PACKAGE...   what shardsync itself needs
#   set_up dev COMMAND:PACKAGE...   and what its tests and checks need
#
# makes ROOT/.venv from the lock files, with the project itself in it (editable). A second call finds
# the stamp of the first and does nothing. A .venv that is a symbolic link belongs to somebody else
# and is taken as it is.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV="$ROOT/.venv"

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

set_up() {
    local kind=$1
    shift
    need_packages "$@"
    if [ -L "$VENV" ] && [ -x "$VENV/bin/python" ]; then return 0; fi
    if is_stamped "$kind"; then return 0; fi
    # Two first runs at once must not build one .venv: the second waits, then finds the stamp.
    exec 9<"$ROOT"
    flock 9
    if ! is_stamped "$kind"; then build_venv "$kind"; fi
    exec 9<&-
}

# --- Debian packages ----------------------------------------------------------------------------

# need_packages COMMAND:PACKAGE...: installs the packages whose command is missing.
need_packages() {
    local entry missing=()
    for entry in "$@"; do
        # sshd lies outside an ordinary user's PATH.
        PATH="$PATH:/usr/sbin:/sbin" command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
    done
    if [ ${#missing[@]} -gt 0 ]; then install_packages "${missing[@]}"; fi
}

install_packages() {
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        die "shardsync needs these packages, and there is no apt-get to install them with: $*"
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            say "shardsync needs Debian packages that are missing: $*"
            say "You are not root and sudo asks for a password (or is not there). Run once, as root:"
            say ""
            say "    apt-get update && apt-get install -y $*"
            say ""
            die "and then this command again."
        fi
        as_root=(sudo -n)
    fi
    say "installing Debian packages: $*"
    # From an old package list come packages that are gone, or ones without their security updates.
    "${as_root[@]}" apt-get update -qq >&2 || say "apt-get update failed; trying all the same"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2 ||
        die "apt-get could not install: $*. Its message stands above; mend that and run this again."
}

# --- Python and .venv ---------------------------------------------------------------------------

# A name on PATH proves nothing (a pyenv shim may fail), so each is asked for its version.
is_python() {
    command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

can_make_venvs() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

# Prints the interpreter to build with: the first of 3.11 or newer that can make virtual environments.
find_python() {
    local candidate old=""
    for candidate in ${SHARDSYNC_PYTHON:+"$SHARDSYNC_PYTHON"} \
        python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        is_python "$candidate" || continue
        if can_make_venvs "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
        old=$candidate
    done
    # Debian keeps ensurepip in a package of its own; its python3 is the one this package serves.
    install_packages python3 python3-venv
    if is_python /usr/bin/python3 && can_make_venvs /usr/bin/python3; then
        echo /usr/bin/python3
        return 0
    fi
    if [ -n "$old" ]; then die "$old cannot make virtual environments (no ensurepip module)."; fi
    die "shardsync needs Python 3.11 or newer: found $(/usr/bin/python3 --version 2>&1)." \
        "Install one and name it: SHARDSYNC_PYTHON=/path/to/python3 $0"
}

# What a stamp holds: the locks, the project's own metadata, the interpreter and the place.
stamp_text() {
    local kind=$1 lock
    lock=$(lock_of "$kind")
    "$VENV/bin/python" -V 2>/dev/null || return 1
    printf '%s\n' "$ROOT"
    cat -- "$lock" "$ROOT/pyproject.toml" | sha256sum
}

lock_of() {
    case $1 in
    run) echo "$ROOT/requirements.lock" ;;
    dev) echo "$ROOT/requirements-dev.lock" ;;
    *) die "set_up: unknown kind $1" ;;
    esac
}

is_stamped() {
    local kind=$1 text
    [ -f "$VENV/stamp-$kind" ] && text=$(stamp_text "$kind") &&
        [ "$text" = "$(cat -- "$VENV/stamp-$kind")" ]
}

# The stamp is written last, so an interrupted set-up is done again.
build_venv() {
    local kind=$1 python began=$SECONDS
    if ! is_of_this_place; then
        python=$(find_python)
        say "making $VENV with $python ($("$python" -V))"
        rm -rf -- "$VENV"
        "$python" -m venv -- "$VENV" >&2 || die "could not make $VENV; the message stands above."
        printf '%s\n' "$ROOT" >"$VENV/place"
    fi
    say "installing Python packages from $(basename -- "$(lock_of "$kind")")"
    pip_install --require-hashes -r "$(lock_of "$kind")"
    # setuptools came with the lock: without isolation nothing unpinned is fetched to build with.
    pip_install --no-deps --no-build-isolation --editable "$ROOT"
    stamp_text "$kind" >"$VENV/stamp-$kind"
    if [ "$kind" = dev ]; then stamp_text run >"$VENV/stamp-run"; fi
    say "set up in $((SECONDS - began)) s; the next run finds it done"
}

# Scripts in a virtual environment name its path, so one that was moved or copied is made anew.
is_of_this_place() {
    [ -x "$VENV/bin/pip" ] && "$VENV/bin/python" -V >/dev/null 2>&1 &&
        [ "$(cat -- "$VENV/place" 2>/dev/null)" = "$ROOT" ]
}

pip_install() {
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$@" >&2 ||
        die "pip could not install the packages; its message stands above. Mend that and run this again."
}
