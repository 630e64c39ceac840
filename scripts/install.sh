#!/usr/bin/env bash
# Puts what was built under PREFIX, or takes it away again; builds nothing. `make install`, `make install-files`,
# `make install-units` and `make uninstall` call it as
#
#   scripts/install.sh install|units|uninstall      units: the services only
#
# From the environment:
#   PREFIX   where the programs will run (default /usr/local)
#   DESTDIR  put before PREFIX while copying, for packages (default empty)
#   BUILT    the folder with the programs (default target/release)
#   CPUS     the CPUs the services may use, as in 2-3 (default empty: all)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
BUILT=${BUILT:-target/release}
CPUS=${CPUS:-}
PROGRAMS="tenon tenon-train tenon-calibrate tenon-bridge tenon-sim-server"
LIBRARIES="libmujoco.so.3.3.7 libonnxruntime.so.1.32.0"
GYM_MODELS="hopper.xml walker2d.xml walker2d_v5.xml half_cheetah.xml"

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

action=${1-}
case "$action" in install | units | uninstall) ;; *) die "say what to do: install, units or uninstall" ;; esac
# These end up in unit files and in sed: nothing there that would have to be quoted.
case "$PREFIX" in
    *[!A-Za-z0-9/._+-]*) die "PREFIX=$PREFIX: only letters, digits and / . _ + - are allowed" ;;
    /*) PREFIX=${PREFIX%/} ;;
    *) die "PREFIX=$PREFIX: must be an absolute path, because the services name it" ;;
esac
case "$CPUS" in *[!0-9,\ -]*) die "CPUS=$CPUS: must be a list like 2-3 or 1,3" ;; esac
root=$DESTDIR$PREFIX

# put MODE SOURCE TARGET: a program that is running keeps its old file, nobody ever sees half of a new one.
put() {
    local target=$root/$3
    if [ "$action" = uninstall ]; then
        rm -f "$target"
        rmdir -p --ignore-fail-on-non-empty "$(dirname "$target")" 2>/dev/null || true
        return
    fi
    { install -D -m "$1" "$2" "$target.tmp.$$" && mv -f "$target.tmp.$$" "$target"; } || {
        rm -f "$target.tmp.$$"
        die "cannot write $target: choose another PREFIX, or run 'sudo make install-files PREFIX=$PREFIX'"
    }
}

programs() {
    local name
    for name in $PROGRAMS; do
        [ "$action" = uninstall ] || [ -x "$BUILT/$name" ] || die "$BUILT/$name is not there: run 'make build' first"
        put 755 "$BUILT/$name" "bin/$name"
    done
}

# The programs look in $ORIGIN/../lib first.
libraries() {
    local name
    for name in $LIBRARIES; do
        [ "$action" = uninstall ] || [ -f ".deps/lib/$name" ] || die ".deps/lib/$name is not there: run 'make setup' first"
        put 755 ".deps/lib/$name" "lib/$name"
    done
}

# The programs look in ../share/tenon/gym first.
gym_models() {
    local name
    for name in $GYM_MODELS; do
        [ "$action" = uninstall ] || [ -f ".deps/gym/$name" ] || die ".deps/gym/$name is not there: run 'make setup' first"
        put 644 ".deps/gym/$name" "share/tenon/gym/$name"
    done
}

# The configurations as shipped. A rig's own lies elsewhere (/etc/tenon, say), so replacing these loses nothing.
shared_files() {
    local file
    while read -r file; do put 644 "$file" "share/tenon/$file"; done < <(find configs -type f -name '*.toml' | sort)
    put 644 LICENSE share/doc/tenon/LICENSE
    put 644 docs/third-party.md share/doc/tenon/third-party.md
    while read -r file; do put 644 "$file" "share/doc/tenon/${file#.deps/}"; done < <(find .deps/licenses -type f | sort)
}

units() {
    local name filled
    filled=$(mktemp)
    for name in tenon-bridge.service tenon@.service; do
        sed -e "s|@bindir@|$PREFIX/bin|g" -e "s|@datadir@|$PREFIX/share/tenon|g" -e "s|@cpus@|$CPUS|g" \
            "systemd/$name" >"$filled"
        put 644 "$filled" "lib/systemd/system/$name"
    done
    rm -f "$filled"
    put 644 systemd/sysusers.conf lib/sysusers.d/tenon.conf
}

if [ "$action" != units ]; then
    programs
    libraries
    gym_models
    shared_files
fi
units
case "$action" in
    uninstall) say "taken away from $root; /var/lib/tenon and /etc/default/tenon stay" ;;
    units) say "services are in $root/lib/systemd/system" ;;
    install)
        say "installed in $root; try: $PREFIX/bin/tenon --help"
        say "services: systemd-sysusers $PREFIX/lib/sysusers.d/tenon.conf && systemctl daemon-reload, then systemctl start tenon@BUNDLE"
        ;;
esac
