#!/usr/bin/env bash
# Makes this checkout ready to build: checks the tools, installs the Debian packages that are missing, and puts the two
# pinned native libraries and the models of the Gym tasks into .deps (git-ignored). A second run changes nothing and
# takes well under a second.
#
#   scripts/setup.sh          what a build and the demo need
#   scripts/setup.sh tests    that, and what only the tests need (systemd-analyze, an OpenGL library for pictures)
#
# TENON_DEPS=DIR is where the wheels are kept between checkouts (default ~/.cache/tenon): with all three wheels in it no
# network is needed. Whatever lies there is used only if its SHA-256 is the pinned one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
temporary=""
trap '[ -z "$temporary" ] || rm -rf "$temporary"' EXIT
trap 'die "interrupted; run it again, it goes on where it stopped"' INT TERM

# --- the pins -------------------------------------------------------------------------------------------------------
# Wheels: requirement, file, SHA-256. Two are made for CPython 3.11, but only plain C libraries and XML are taken out of
# them: any Python 3 can fetch them.
pinned_wheels() {
    cat <<'END'
mujoco==3.3.7 mujoco-3.3.7-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl 9371506f0df2d82152685fc8d38465843abcea8d371745ea7c125001e8f3f2d8
onnxruntime==1.32.0 onnxruntime-1.32.0-cp311-cp311-manylinux_2_28_x86_64.whl 5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d
gymnasium==1.4.0 gymnasium-1.4.0-py3-none-any.whl 1cb947c59e7c72d8eabb2c2274c00cd20948e69f8452a9ef4092223be24fdf0e
END
}

# What .deps holds in the end: SHA-256, file, where it lies in its wheel (the member's path begins with the wheel's name).
unpacked() {
    cat <<'END'
23841520ecf60ad648405674a757f260949f7cf6b44deb284398b9851b3f061d lib/libmujoco.so.3.3.7 mujoco/libmujoco.so.3.3.7
cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30 licenses/mujoco-LICENSE mujoco-3.3.7.dist-info/licenses/LICENSE
62547d50857e51b2021f0df550982a6829954668ba4765b7739344a7e2386941 licenses/mujoco-LICENSES_THIRD_PARTY.md mujoco-3.3.7.dist-info/licenses/LICENSES_THIRD_PARTY.md
6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f lib/libonnxruntime.so.1.32.0 onnxruntime/capi/libonnxruntime.so.1.32.0
2f07c72751aed99790b8a4869cf2311df85a860b22ded05fa22803587a48922c licenses/onnxruntime-LICENSE onnxruntime/LICENSE
d8696258afcf9df7827a5e01d6b6d55ee9b461b4e82020f5f48242deb9cc2270 licenses/onnxruntime-ThirdPartyNotices.txt onnxruntime/ThirdPartyNotices.txt
3ce93a055ffdcd83c0c701d2400768e40d2cbb9532f3c4ae33377c27f8b39f9e gym/hopper.xml gymnasium/envs/mujoco/assets/hopper.xml
ac13373c7ac9003a5311c4704b314ed11149b3dd7600bbc02770487300f9ad2d gym/walker2d.xml gymnasium/envs/mujoco/assets/walker2d.xml
6bed53a6cc3ca73c4fe8ac3486d3b4228927264a6454f4ef16d3eed3c58bc09d gym/walker2d_v5.xml gymnasium/envs/mujoco/assets/walker2d_v5.xml
11797a5d69e8ac955e89ca6fdd3a0087f1c990094fda401ac51420de1b6c5494 gym/half_cheetah.xml gymnasium/envs/mujoco/assets/half_cheetah.xml
7dacaa9772e856aee6943b32ef663d3634d91d72ec7bbc74d136943673f91e18 licenses/gymnasium-LICENSE gymnasium-1.4.0.dist-info/licenses/LICENSE
END
}

# --- tools ----------------------------------------------------------------------------------------------------------
check_machine() {
    [ "$(uname -sm)" = "Linux x86_64" ] ||
        die "this is $(uname -sm): the pinned libraries exist for Linux x86_64 only; build there"
}

check_rust() {
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    command -v cargo >/dev/null ||
        die "cargo was not found: install Rust $needed or newer (https://rustup.rs), or add ~/.cargo/bin to PATH"
    found=$(rustc --version 2>/dev/null | cut -d' ' -f2) ||
        die "rustc does not start: run 'rustup default stable' or install Rust $needed or newer (https://rustup.rs)"
    [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n1)" = "$needed" ] ||
        die "rustc is $found, $needed or newer is needed: run 'rustup update' (https://rustup.rs)"
}

# A compiler without the C library's headers (gcc without libc6-dev) is as good as none: compile and link something.
c_compiler_works() {
    command -v cc >/dev/null &&
        printf '#include <stdlib.h>\n#include <math.h>\nint main(int c,char**v){return atoi(v[0])+(int)sqrt(c);}\n' |
        cc -x c - -lm -o /dev/null 2>/dev/null
}

# Pictures of simulated worlds are drawn by whichever of these is there; none is linked to.
gl_is_there() {
    local libraries
    libraries=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null) || return 1
    grep -qE 'libOSMesa\.so\.|libEGL_(mesa|nvidia)\.so\.0' <<<"$libraries"
}

missing_packages() {
    c_compiler_works || echo gcc libc6-dev
    command -v make >/dev/null || echo make
    if [ "$libraries" = missing ]; then
        command -v python3 >/dev/null || echo python3
        python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
    fi
    if [ "$for_tests" = yes ]; then
        command -v systemd-analyze >/dev/null || echo systemd
        gl_is_there || echo libosmesa6
    fi
}

install_packages() {
    local packages root=""
    packages=$(missing_packages | xargs)
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null ||
        die "missing here, by their Debian names: $packages; install them with this system's package manager"
    if [ "$(id -u)" != 0 ]; then
        # Without a terminal nobody can type a password: fail at once instead of waiting for one.
        if [ -t 0 ]; then root="sudo"; else root="sudo -n"; fi
        $root true 2>/dev/null || die "Debian packages are missing: run 'apt-get install $packages' as root, then make again"
    fi
    say "installing Debian packages: $packages"
    local apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends"
    # shellcheck disable=SC2086  # package names and the sudo prefix are lists of words
    { $apt install $packages || { $apt update && $apt install $packages; }; } >/dev/null </dev/null ||
        die "apt-get could not install: $packages (its message stands above); install them by hand, then make again"
    packages=$(missing_packages | xargs)
    [ -z "$packages" ] || die "apt-get installed its packages, but these still do not work: $packages; check PATH"
}

# --- native libraries and models ------------------------------------------------------------------------------------
# Every run reads all of them (about a third of a second), so a damaged one never reaches the linker.
libraries_are_whole() {
    [ "$(readlink .deps/lib/libmujoco.so 2>/dev/null)" = libmujoco.so.3.3.7 ] &&
        (cd .deps && unpacked | awk '{ print $1 "  " $2 }' | sha256sum --check --status 2>/dev/null)
}

# has_sha256 SHA256 FILE
has_sha256() { [ -f "$2" ] && [ "$(sha256sum <"$2" | cut -d' ' -f1)" = "$1" ]; }

why_pip_failed() {
    if grep -qiE 'connection|name resolution|unreachable|timed out|proxy' "$temporary/pip.log"; then
        echo "no connection to the Python package index"
    else
        grep -i error "$temporary/pip.log" | tail -n1 | cut -c1-160
    fi
}

# fetch_wheel REQUIREMENT FILE SHA256: leaves the checked wheel in $wheels.
fetch_wheel() {
    if has_sha256 "$3" "$wheels/$2"; then return 0; fi
    [ ! -e "$wheels/$2" ] || say "$wheels/$2 is damaged (SHA-256 differs); fetching it again"
    say "fetching $1 from the Python package index"
    temporary=$(mkdir -p "$wheels" && mktemp -d "$wheels/fetch.XXXXXX") ||
        die "cannot write to $wheels: name a folder that can be written with TENON_DEPS=DIR"
    # The platform tags are spelled out because older versions of pip do not derive one from another.
    python3 -m pip download --quiet --no-deps --no-input --only-binary=:all: --retries 2 --timeout 30 \
        --python-version 3.11 --implementation cp --abi cp311 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --dest "$temporary" "$1" >"$temporary/pip.log" 2>&1 </dev/null ||
        die "$1 could not be fetched ($(why_pip_failed)): mend that, or put $2 into $wheels, then make again"
    has_sha256 "$3" "$temporary/$2" ||
        die "$1 came with another SHA-256 than the pinned one and was thrown away:" \
            "check the index and proxy that pip uses ('python3 -m pip config list')"
    mv -f "$temporary/$2" "$wheels/$2"
    rm -rf "$temporary"
}

# Lines of unpacked() whose file is missing or damaged. The others are left alone: cargo would rebuild for a new date.
not_whole() {
    local sha256 file member
    while read -r sha256 file member; do
        has_sha256 "$sha256" ".deps/$file" || echo "$sha256 $file $member"
    done < <(unpacked)
}

# unpack LINES WHEEL…: takes these files out of the wheels. Each is written beside its place and then renamed.
unpack() {
    mkdir -p .deps/lib .deps/licenses .deps/gym
    python3 -c '
import os, sys, zipfile
wheels = [zipfile.ZipFile(path) for path in sys.argv[1:]]
for line in filter(str.strip, sys.stdin):
    _, name, member = line.split()
    wheel = next(w for w in wheels if member in w.namelist())
    target = os.path.join(".deps", name)
    temporary = "%s.%d.tmp" % (target, os.getpid())
    with open(temporary, "wb") as file:
        file.write(wheel.read(member))
    os.chmod(temporary, 0o755 if ".so" in name else 0o644)
    os.replace(temporary, target)
' "${@:2}" <<<"$1" ||
        die "the wheels could not be unpacked into $PWD/.deps: free disk space there (60 MB) or mend its permissions"
    [ "$(readlink .deps/lib/libmujoco.so)" = libmujoco.so.3.3.7 ] || ln -sfn libmujoco.so.3.3.7 .deps/lib/libmujoco.so
}

fetch_libraries() {
    [ "$libraries" = missing ] || return 0
    [ ! -d .deps ] || say "something in .deps is missing, damaged or from another version; mending it"
    wheels=${TENON_DEPS:-${XDG_CACHE_HOME:-${HOME:-$PWD/.deps}/.cache}/tenon}
    local lacking requirement file sha256 needed=()
    lacking=$(not_whole)
    # Only the wheels that are needed: a checkout that lacks the models alone does without the others.
    while read -r requirement file sha256; do
        grep -q " ${requirement%%=*}[-/]" <<<"$lacking" || continue
        fetch_wheel "$requirement" "$file" "$sha256"
        needed+=("$wheels/$file")
    done < <(pinned_wheels)
    unpack "$lacking" ${needed[@]+"${needed[@]}"}
    libraries_are_whole || die "what was unpacked in $PWD/.deps does not have the pinned SHA-256: check that disk"
    say "MuJoCo 3.3.7 and ONNX Runtime 1.32.0 are in .deps/lib, the models of Gymnasium 1.4.0 in .deps/gym"
}

for_tests=no
case "${1-}" in
    "") ;;
    tests) for_tests=yes ;;
    *) die "unknown argument '$1': none, or 'tests'" ;;
esac
check_machine
check_rust
if libraries_are_whole; then libraries=whole; else libraries=missing; fi
install_packages
fetch_libraries
