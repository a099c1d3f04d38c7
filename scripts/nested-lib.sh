# The parts of scripts/nested-host: its kernel, its file tree, its boot.
# Sourced after lib.sh, not run.
# shellcheck shell=bash

# shellcheck disable=SC2154 # root: set by whoever sources this
nested_cache=$root/target/nested-host

# --- The emulated machine's kernel ----------------------------------------

# Sets nested_vmlinuz, nested_modules (a folder) and nested_busybox: from the
# cache, else from packages that are unpacked there and not installed, else from
# what is installed.
need_nested_kernel() {
    mkdir -p "$nested_cache"
    nested_busybox=$nested_cache/busybox
    [ -x "$nested_busybox" ] || fetch_busybox
    set_nested_kernel "$nested_cache/kernel" && return
    fetch_kernel && set_nested_kernel "$nested_cache/kernel" && return
    warn "no package of a kernel could be fetched; trying the installed one"
    set_nested_kernel "" && return
    die "no Linux kernel with a kvm-amd module for the emulated host; install one:
  apt-get install linux-image-cloud-amd64    (Debian)
  apt-get install linux-image-virtual        (Ubuntu)"
}

# Looks for a readable kernel with kvm-amd below a folder that is like /.
set_nested_kernel() {
    local module
    for module in "$1"/lib/modules/*/kernel/arch/x86/kvm/kvm-amd.ko* \
        "$1"/usr/lib/modules/*/kernel/arch/x86/kvm/kvm-amd.ko*; do
        [ -r "$module" ] || continue
        nested_modules=${module%/kernel/arch/*}
        for nested_vmlinuz in "$1/boot/vmlinuz-${nested_modules##*/}" "$nested_modules/vmlinuz"; do
            [ ! -r "$nested_vmlinuz" ] || return 0
        done
    done
    return 1
}

fetch_busybox() {
    fetch_package busybox-static "$nested_cache/busybox-package" || true
    local busybox
    for busybox in "$nested_cache"/busybox-package/{,usr/}bin/busybox /bin/busybox; do
        if ! [ -x "$busybox" ] || ! is_static "$busybox"; then
            continue
        fi
        cp "$busybox" "$nested_busybox"
        rm -rf "$nested_cache/busybox-package"
        return
    done
    die "no static busybox; on Debian it is in the package busybox-static"
}

# The newest kernel of Debian's or Ubuntu's package for virtual machines.
fetch_kernel() {
    local meta packages
    for meta in linux-image-cloud-amd64 linux-image-virtual; do
        apt_knows "$meta" || continue
        packages=$(apt-cache depends --recurse --important "$meta" |
            grep -E '^linux-(image|modules)-[0-9]' | sort -u)
        [ -n "$packages" ] || continue
        rm -rf "$nested_cache/kernel.part"
        local package
        for package in $packages; do
            fetch_package "$package" "$nested_cache/kernel.part" || continue 2
        done
        rm -rf "$nested_cache/kernel"
        mv "$nested_cache/kernel.part" "$nested_cache/kernel"
        return
    done
    return 1
}

# fetch_package NAME FOLDER: downloads a package and unpacks it there.
fetch_package() {
    have apt-get && have dpkg-deb || return 1
    apt_knows "$1" || return 1
    local folder=$nested_cache/download
    rm -rf "$folder"
    mkdir -p "$folder" "$2"
    say "fetching $1 for the emulated host (not installed)"
    download "$folder" "$1" || { apt_refresh && download "$folder" "$1"; } || return 1
    dpkg-deb -x "$folder"/*.deb "$2" && rm -rf "$folder"
}

download() { (cd "$1" && apt-get download -qq -o APT::Sandbox::User=root "$2" >&2 </dev/null); }

# --- The file tree --------------------------------------------------------

# Makes the tree of the emulated host: busybox, kvm's modules and /init.
new_tree() {
    mkdir -p "$1"/{bin,dev,proc,sys,tmp,work,modules,tests,etc}
    cp "$nested_busybox" "$1/bin/busybox"
    cp "$root/scripts/nested-init" "$1/init"
    cp "$root/scripts/nested-run-tests" "$1/bin/run-tests"
    chmod +x "$1/init" "$1/bin/run-tests"
    echo 'root:x:0:0::/:/bin/sh' >"$1/etc/passwd"
    add_module "$1" kvm-amd
}

# Adds a module after those it depends on; /init inserts them in that order.
add_module() {
    local name=${1}/modules/${2//_/-}.ko file needed
    [ ! -e "$name" ] || return 0
    file=$(find "$nested_modules" -name "${2//[-_]/[-_]}.ko*" | head -n 1)
    if [ -z "$file" ]; then
        grep -q "/${2//[-_]/[-_]}\.ko" "$nested_modules/modules.builtin" && return
        die "the kernel in $nested_modules lacks the module $2"
    fi
    case $file in
    *.xz) need xz xz-utils && xz -dc "$file" >"$name" ;;
    *.zst) need zstd zstd && zstd -qdc "$file" >"$name" ;;
    *.gz) gzip -dc "$file" >"$name" ;;
    *) cp "$file" "$name" ;;
    esac
    for needed in $(tr '\0' '\n' <"$name" | sed -n 's/^depends=//p' | tr ',' ' '); do
        add_module "$1" "$needed"
    done
    echo "/modules/${name##*/}" >>"$1/modules/order"
}

# Whether a program names no dynamic loader, which it would do near its start.
is_static() { [ "$(head -c 4096 "$1" | grep -ac 'ld-linux\|ld-musl')" = 0 ]; }

# Adds a program, which must be static, without its debug information.
add_program() {
    [ -x "$2" ] || die "$2 is not a program"
    is_static "$2" || die "$2 is not statically linked; the emulated host has no libraries"
    mkdir -p "$(dirname "$1$3")"
    if ! { have strip && strip -o "$1$3" "$2" 2>/dev/null; }; then
        cp "$2" "$1$3"
    fi
    chmod +x "$1$3"
}

# Adds programs of this machine with the libraries that they are linked to, at
# the places where they are here: what tests run as "the host's own programs".
add_linked_programs() {
    local tree=$1 name file
    shift
    for name in "$@"; do
        file=$(command -v "$name") || die "this machine has no program $name"
        for file in "$file" $(ldd "$file" | grep -o '/[^ ]*'); do
            mkdir -p "$tree${file%/*}"
            cp -L "$file" "$tree$file"
        done
    done
}

add_file() {
    [ -e "$2" ] || die "--file: $2 does not exist"
    local destination=$3
    [ "${destination#/}" != "$destination" ] || destination=/work/$destination
    mkdir -p "$(dirname "$1$destination")"
    cp -RL "$2" "$1$destination"
}

# Writes the command that /init runs, quoted for any shell.
write_command() {
    local tree=$1 word
    shift
    {
        for word in ${variables[@]+"${variables[@]}"}; do
            [[ $word =~ ^[A-Za-z_][A-Za-z_0-9]*= ]] || die "--env: not NAME=VALUE: $word"
            printf "export '%s'\n" "${word//\'/\'\\\'\'}"
        done
        printf 'exec'
        for word in "$@"; do
            printf " '%s'" "${word//\'/\'\\\'\'}"
        done
        printf '\n'
    } >"$tree/command"
}

pack_tree() {
    (cd "$1" && find . | "$nested_busybox" cpio -o -H newc 2>/dev/null) >"$2"
}

# --- The boot -------------------------------------------------------------

# Programs lie on a ramfs: on a tmpfs, the default, their pages would count as
# shared memory of the process, and so would look like guest memory.
#
# The kernel may not use the timer of the local APIC: it measures that timer's
# frequency in its first moments, and where this machine is busy then, it is wrong
# by several times, and everything on the emulated host that waits waits too long.
# The HPET, which it takes instead, says its frequency.
#
# boot SCRATCH MIB SECONDS: runs the machine; its serial ports are the kernel's
# log, the program's standard output and its standard error. Exits with the
# program's status.
boot() {
    local scratch=$1 log=$1/console status=0 output errors
    mkfifo "$scratch/output" "$scratch/errors"
    cat "$scratch/output" & output=$!
    cat "$scratch/errors" >&2 & errors=$!
    say "booting the emulated host (QEMU TCG, AMD-V with nested paging, at most $3 s)"
    timeout "$3" qemu-system-x86_64 -accel tcg -machine pc -cpu max,+svm,+npt -m "$2" \
        -nodefaults -display none -no-reboot \
        -kernel "$nested_vmlinuz" -initrd "$scratch/initrd" \
        -append 'console=ttyS0 panic=-1 rootfstype=ramfs nolapic_timer' \
        -chardev "file,id=log,path=$log" -serial chardev:log \
        -chardev "file,id=output,path=$scratch/output" -serial chardev:output \
        -chardev "file,id=errors,path=$scratch/errors" -serial chardev:errors \
        </dev/null 2>"$scratch/qemu" &
    emulator=$!
    wait "$emulator" || status=$?
    emulator=''
    # A failed start opened neither pipe. Opening both ends never blocks, and
    # lets a reader that still waits for a writer come to its end.
    : <>"$scratch/output" <>"$scratch/errors"
    wait "$output" "$errors"
    finish "$scratch" "$status" "$3"
}

# Exits with the program's status, or says why there is none.
finish() {
    local log=$1/console status
    status=$(sed -n 's/.*nested-host: exit status \([0-9]*\).*/\1/p' "$log" 2>/dev/null | tail -n 1)
    [ -z "$status" ] || exit "$status"
    if [ "$2" -eq 124 ]; then
        warn "the time limit of $3 s is up; the end of the emulated host's log:"
    else
        warn "the emulated host ended without running the program to its end (QEMU's status $2):"
    fi
    cat "$1/qemu" >&2 || true
    if [ -s "$log" ]; then
        tail -n 30 "$log" >&2
    else
        warn "its kernel said nothing; too little --memory ends like this"
    fi
    [ "$2" -ne 124 ] || exit 124
    exit 125
}
