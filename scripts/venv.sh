# Sourced by scripts/serve, scripts/test and scripts/check. Before: root=<the checkout>.
# prepare_venv EXTRAS makes $root/.venv with IVAS and those extras in it, and those the
# variable EXTRAS names, or ends with a sentence. A second run finds its stamp and takes
# no time. What an earlier run installed stays.

python="$root/.venv/bin/python"
constraints=constraints.txt

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 1
}

# True if $1 runs (a pyenv shim may not), is new enough and can make environments
# (Debian keeps that in another package).
fits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Prints the best Python of this machine. 3.11 and 3.13 come first: pocketsphinx has
# wheels for these and must be compiled for the others.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" && printf '%s\n' "$PYTHON"
        return
    fi
    for version in 3.11 3.13 3.12 3.14 3.15; do
        for candidate in "python$version" \
            "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python \
            "/opt/homebrew/bin/python$version" "/usr/local/bin/python$version"; do
            if fits "$candidate"; then
                printf '%s\n' "$candidate"
                return
            fi
        done
    done
    for candidate in python3 python; do
        if fits "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    return 1
}

how_to_get_python() {
    if [ "$(uname -s)" = Darwin ]; then
        echo "brew install python@3.13"
    elif command -v apt-get >/dev/null 2>&1; then
        echo "sudo apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04 or newer)"
    elif command -v dnf >/dev/null 2>&1; then
        echo "sudo dnf install python3.13"
    elif command -v pacman >/dev/null 2>&1; then
        echo "sudo pacman -S python"
    elif command -v apk >/dev/null 2>&1; then
        echo "sudo apk add python3"
    else
        echo "see https://www.python.org/downloads/"
    fi
}

# Installs the checkout, $1 = `.[EXTRAS]`, and what else is named; pip writes to a log.
pip_install() {
    (cd "$root" && "$python" -m pip install --quiet --disable-pip-version-check \
        -c "$constraints" -e "$@") >"$root/.venv/install.log" 2>&1
}

# True if every word of $1 is in $2; both are parted by commas.
covers() {
    for word in $(printf '%s' "$1" | tr , ' '); do
        case ",$2," in
            *",$word,"*) ;;
            *) return 1 ;;
        esac
    done
}

# The words of $1 and $2, parted by commas, each once.
joined() {
    all=$1
    for word in $(printf '%s' "$2" | tr , ' '); do
        covers "$word" "$all" || all="$all,$word"
    done
    printf '%s\n' "$all"
}

prepare_venv() {
    extras=$(joined "$1" "${EXTRAS:-}")
    # The path is part of it: after a move the editable install points nowhere.
    stamp="$(cat "$root/pyproject.toml" "$root/$constraints" | cksum) $constraints $root"
    installed="$root/.venv/installed"
    there=""
    if [ -x "$python" ] && [ -f "$installed" ]; then
        there=$(sed -n 2p "$installed")
        if [ "$(sed -n 1p "$installed")" = "$stamp" ] && covers "$extras" "$there"; then
            return
        fi
        extras=$(joined "$extras" "$there")
    fi

    if ! fits "$python"; then
        base=$(find_python) || fail "IVAS needs Python 3.11 or newer with its venv module," \
            "and ${PYTHON:-this machine} has none that works; get one: $(how_to_get_python)"
        say "Making .venv with $("$base" --version 2>&1) ..."
        "$base" -m venv --clear "$root/.venv" ||
            fail "The environment $root/.venv could not be made; see the message above."
    fi
    say "Installing IVAS and what it needs (the first time this takes a minute or more) ..."
    if ! pip_install ".[$extras]"; then
        if ! grep -qi pocketsphinx "$root/.venv/install.log"; then
            tail -n 15 "$root/.venv/install.log" >&2
            fail "The installation failed; mend what pip says above (is there a network?)" \
                "and run this again."
        fi
        say "pocketsphinx has no wheel for this Python and could not be compiled:" \
            "installing without it, so speech recognition is missing." \
            "Use Python 3.11 or 3.13, or install a C compiler, and remove .venv."
        without=".[$(printf ',%s,' "$extras" | sed 's/,embedded,/,/; s/^,//; s/,$//')]"
        [ "$without" != ".[]" ] || without=.
        if ! pip_install "$without" espeakng-loader; then
            tail -n 15 "$root/.venv/install.log" >&2
            fail "The installation failed; mend what pip says above and run this again."
        fi
    fi
    printf '%s\n%s\n' "$stamp" "$extras" >"$installed"
}
