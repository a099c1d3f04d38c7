# Static builds of pagelab and of its tests: the emulated host has no libraries,
# and what is tested here and there is one and the same program.
# Sourced after lib.sh, not run.
# shellcheck shell=bash

# shellcheck disable=SC2154 # root: set by whoever sources this
static_folder=$root/target/static
static_target=x86_64-unknown-linux-gnu

# cargo for the host, linking statically, in a target folder of its own. With a
# target named, the flags stay away from build scripts and procedural macros.
static_cargo() {
    CARGO_TARGET_DIR=$static_folder CARGO_BUILD_TARGET=$static_target \
        RUSTFLAGS='-Ctarget-feature=+crt-static' \
        cargo "$1" --manifest-path "$root/Cargo.toml" "${@:2}"
}

# static_pagelab PROFILE: builds pagelab and prints its path.
static_pagelab() {
    local folder=$1
    [ "$1" != dev ] || folder=debug
    say "building a static pagelab ($1)"
    static_cargo build --quiet --package pagelab --bin pagelab --profile "$1" >&2 || return 1
    echo "$static_folder/$static_target/$folder/pagelab"
}

# Builds the VM tests and prints their paths, one in a line.
static_vm_tests() {
    say "building the VM tests, statically linked"
    static_cargo test --quiet --package pagelab --test '*' --no-run \
        --message-format=json-render-diagnostics |
        sed -n '/"kind":\["test"\]/s/.*"executable":"\([^"]*\)".*/\1/p'
}

# A test program's name without cargo's hash.
test_name() {
    local name=${1##*/}
    echo "${name%-*}"
}
