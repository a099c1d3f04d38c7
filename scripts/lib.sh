# Shared by the scripts beside it: messages, and installing what is missing.
# Sourced, not run.
# shellcheck shell=bash

# Rust target of the guest kernel.
GUEST_TARGET=x86_64-unknown-none
# Oldest Rust that builds the workspace (`rust-version` in Cargo.toml).
OLDEST_RUST=1.88
# Seconds that rustup gets to download the guest's target; offline, it hangs.
RUSTUP_SECONDS=90

say() { printf '==> %s\n' "$*" >&2; }
warn() { printf '==> warning: %s\n' "$*" >&2; }
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Prints what the script's first lines say of it, and exits with this status.
usage() {
    local to=2
    [ "$1" -ne 0 ] || to=1
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&"$to"
    exit "$1"
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root; fails where that takes a password nobody can type.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && { [ -t 2 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        warn "this needs root, and sudo is not available: $*"
        return 1
    fi
}

# Whether apt can install all of the named packages.
apt_has() {
    have apt-cache || return 1
    local package
    for package in "$@"; do
        [[ $(apt-cache policy "$package" 2>/dev/null) =~ Candidate:\ [^\(] ]] || return 1
    done
}

# The candidate version of a package, up to the first character that is no part
# of an upstream version.
apt_version() {
    apt-cache policy "$1" 2>/dev/null |
        sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'
}

# Reads the package lists anew, once.
apt_refresh() {
    have apt-get && [ -z "${apt_refreshed:-}" ] || return 1
    apt_refreshed=yes
    say "reading the package lists (apt-get update)"
    as_root_quietly apt-get update
}

# Makes sure that apt knows a package.
apt_knows() { apt_has "$1" || { apt_refresh && apt_has "$1"; }; }

# Installs packages; never removes one to do so.
apt_install() {
    apt_knows "$1" || {
        warn "apt cannot install $1"
        return 1
    }
    say "installing $* (apt-get install)"
    # Lists may name versions that the archive has replaced since.
    apt_install_now "$@" || { apt_refresh && apt_install_now "$@"; }
}

apt_install_now() {
    as_root_quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends --no-remove "$@"
}

# Runs a command as root; shows what it printed only where it failed.
as_root_quietly() {
    local output
    output=$(as_root "$@" 2>&1 </dev/null) || {
        printf '%s\n' "$output" | tail -n 20 >&2
        return 1
    }
}

# need COMMAND PACKAGE: installs the package unless the command exists.
need() {
    have "$1" || { apt_install "$2" && have "$1"; } ||
        die "$1 is missing and could not be installed; on Debian it is in the package $2"
}

# Whether version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# Makes sure that there is a host toolchain which can build the workspace.
need_rust() {
    [ "$(uname -m)" = x86_64 ] || die "pagelab runs on x86-64 only; this is $(uname -m)"
    # rustup's installer changes the PATH of later shells only.
    have cargo || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
    if ! cargo --version >/dev/null 2>&1; then
        install_rust
    fi
    if ! rust_is_new && ! have rustup; then
        say "Rust $OLDEST_RUST or newer is needed; this is $(rustc --version)"
        install_system_rust || true
    fi
    rust_is_new ||
        die "Rust $OLDEST_RUST or newer is needed, this is $(rustc --version); try: rustup update stable"
    need cc gcc
}

rust_is_new() { at_least "$(rustc --version | cut -d ' ' -f 2)" "$OLDEST_RUST"; }

install_rust() {
    if have rustup; then
        say "installing stable Rust (rustup toolchain install)"
        timeout 600 rustup toolchain install stable --profile minimal \
            --component clippy --component rustfmt >&2 </dev/null || true
    else
        install_system_rust || true
    fi
    cargo --version >/dev/null 2>&1 ||
        die "no cargo here, and none could be installed; see https://rustup.rs"
}

# The distribution's packages of a new enough Rust with its library sources.
install_system_rust() {
    local packages
    for packages in 'rustc-web cargo-web rust-web-src' 'rustc cargo rust-src'; do
        # shellcheck disable=SC2086 # a list of words
        if apt_has_new_rust $packages || { apt_refresh && apt_has_new_rust $packages; }; then
            apt_install $packages lld
            return
        fi
    done
    warn "no package of Rust $OLDEST_RUST or newer with its sources (rustc-web, rustc)"
    return 1
}

# Whether all of these packages exist, the first one new enough.
apt_has_new_rust() { apt_has "$@" && at_least "$(apt_version "$1")" "$OLDEST_RUST"; }

# Prints the compiler that can build for the guest, or nothing. Judges as the
# VMM's build script does, which has the last word.
guest_rustc() {
    local rustc rustlib candidates=(rustc /usr/bin/rustc)
    [ -z "${PAGELAB_GUEST_RUSTC:-}" ] || candidates=("$PAGELAB_GUEST_RUSTC")
    for rustc in "${candidates[@]}"; do
        rustlib=$("$rustc" --print sysroot 2>/dev/null)/lib/rustlib
        if compgen -G "$rustlib/$GUEST_TARGET/lib/libcore-*.rlib" >/dev/null ||
            [ -f "$rustlib/src/rust/library/core/src/lib.rs" ]; then
            echo "$rustc"
            return
        fi
    done
}

# Whether this compiler has the guest's core ready-made.
has_guest_core() {
    compgen -G "$("$1" --print sysroot)/lib/rustlib/$GUEST_TARGET/lib/libcore-*.rlib" >/dev/null
}

# Makes sure that some toolchain can build the guest.
need_guest_toolchain() {
    [ -z "$(guest_rustc)" ] || return 0
    if have rustup; then
        say "adding the guest's target (rustup target add $GUEST_TARGET, at most $RUSTUP_SECONDS s)"
        timeout "$RUSTUP_SECONDS" rustup target add "$GUEST_TARGET" >&2 </dev/null || true
        [ -z "$(guest_rustc)" ] || return 0
        warn "rustup cannot have it; trying the distribution's Rust with library sources"
    fi
    install_system_rust || true
    [ -n "$(guest_rustc)" ] ||
        die "no toolchain can build the guest kernel; install one of:
  rustup target add $GUEST_TARGET
  apt-get install rustc-web cargo-web rust-web-src lld    (Debian 12)"
}

# need_component NAME PACKAGE...: makes sure that `cargo NAME` works: a component
# of rustup's toolchain, else the first of the packages that exists.
need_component() {
    ! cargo "$1" --version >/dev/null 2>&1 || return 0
    local component=${1/#fmt/rustfmt} package
    if have rustup; then
        say "adding $component (rustup component add)"
        timeout "$RUSTUP_SECONDS" rustup component add "$component" >&2 </dev/null || true
    else
        for package in "${@:2}"; do
            ! apt_has "$package" || { apt_install "$package" && break; } || true
        done
    fi
    cargo "$1" --version >/dev/null 2>&1 || die "cargo $1 is missing and could not be installed"
}
