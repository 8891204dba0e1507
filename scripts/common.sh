# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Functions of the scripts; sourced, never run.

# shellcheck disable=SC2034  # used by the scripts that source this file
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# For what is downloaded or built once for all clones of the repository.
cache=${MAYFLY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mayfly}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "error: $*" && exit 1; }

# run_logged LOG COMMAND...: prints the end of the log if the command fails, and otherwise nothing.
run_logged() {
    local log=$1
    shift
    "$@" >>"$log" 2>&1 && return
    tail -n 40 "$log" >&2
    die "failed: $* (whole log: $log)"
}

# together FUNCTION...: runs the functions side by side, with their names before each line that they print. When one
# fails it ends the others, and the script.
declare -A running=()
together() {
    local job pid failed=
    trap 'for pid in "${!running[@]}"; do kill -- "-$pid" 2>/dev/null || true; done' EXIT
    set -m # each job in a process group of its own
    for job; do
        { "$job" </dev/null 2>&1 | sed -u "s/^/$job: /" >&2; } &
        running[$!]=$job
    done
    set +m
    while [ ${#running[@]} -gt 0 ]; do
        wait -n -p pid "${!running[@]}" || failed=${running[$pid]}
        unset "running[$pid]"
        [ -z "$failed" ] || die "$failed failed: its lines above say why"
    done
    trap - EXIT
}

# as_root COMMAND...: for the few steps that change the system.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root for: $*; run it as root or install sudo"
    fi
}

# debian_mirror: the mirror from which this machine gets Debian, whatever the format of its sources.
debian_mirror() {
    local codename mirror
    codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016  # apt's own placeholders
    mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
        awk -v c="$codename" '($2 == c || $2 == "stable") && $3 == "main" && !found { print $1; found = 1 }')
    [ -n "$mirror" ] || die "found no Debian mirror in this machine's apt sources"
    printf '%s\n' "$mirror"
}

# private_apt DIR TOOL ARGUMENT...: apt with sources, lists and caches of its own in DIR (see private_sources), so that
# the system's apt stays unchanged and no root is needed.
private_apt() {
    local dir=$1 tool=$2
    shift 2
    "$tool" -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root "$@"
}

# private_sources DIR deb|deb-src SUITE: sets DIR up for private_apt, signatures verified.
private_sources() {
    local dir=$1 type=$2 suite=$3 mirror
    mirror=$(debian_mirror) || return
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    printf '%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "$type" "$mirror" "$suite" >"$dir/sources.list"
    private_apt "$dir" apt-get -qq update
}

# lock_cache NAME: admits one process at a time; a second one waits, then finds the first one's result.
lock_cache() {
    mkdir -p "$cache"
    exec 9>"$cache/$1.lock"
    flock 9
}
