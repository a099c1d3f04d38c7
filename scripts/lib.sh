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

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root; fails where that takes a password nobody can type.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
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

# Reads the package lists where none of them knows the first package.
apt_refresh_for() {
    have apt-get || return 1
    apt_has "$1" && return 0
    say "reading the package lists (apt-get update)"
    as_root apt-get update -qq </dev/null >&2 || warn "apt-get update failed"
}

# Installs packages; never removes one to do so.
apt_install() {
    have apt-get || {
        warn "no apt-get here to install: $*"
        return 1
    }
    apt_refresh_for "$1"
    say "installing $* (apt-get install)"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
        --no-install-recommends --no-remove "$@" </dev/null >&2
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
    local version
    version=$(rustc --version | cut -d ' ' -f 2)
    at_least "$version" "$OLDEST_RUST" ||
        die "Rust $OLDEST_RUST or newer is needed, this is $version; try: rustup update stable"
    need cc gcc
}

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
    apt_refresh_for rustc-web
    if apt_has rustc-web cargo-web rust-web-src; then
        apt_install rustc-web cargo-web rust-web-src lld
    elif apt_has rustc cargo rust-src && at_least "$(apt_version rustc)" "$OLDEST_RUST"; then
        apt_install rustc cargo rust-src lld
    else
        warn "no package of Rust $OLDEST_RUST or newer with its sources (rustc-web, rustc)"
        return 1
    fi
}

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
