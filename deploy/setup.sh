# Sourced, never run: finding out what is missing on this machine and installing it on Debian.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# need_commands COMMAND:PACKAGE ...: installs the Debian package of every command that is not there.
need_commands() {
    local pair packages=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || packages+=("${pair#*:}")
    done
    if [ ${#packages[@]} -eq 0 ]; then return 0; fi
    if ! command -v apt-get >/dev/null; then
        say "missing: ${packages[*]} (names of Debian packages); install the like with your package manager"
        return 1
    fi
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            say "missing: ${packages[*]}; as root: apt-get install ${packages[*]}"
            return 1
        fi
        as_root=(sudo)
    fi
    say "installing Debian packages: ${packages[*]}"
    "${as_root[@]}" apt-get update -qq >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
    stop_new_services "${packages[@]}"
}

# Debian starts a server when it installs it; nothing here needs that, and it would hold a port.
stop_new_services() {
    local package
    [ -d /run/systemd/system ] || return 0
    for package in "$@"; do
        case $package in
            nginx-light) "${as_root[@]}" systemctl disable --now nginx >&2 || true ;;
            bird2) "${as_root[@]}" systemctl disable --now bird >&2 || true ;;
            varnish | haproxy | nats-server | prometheus | gdnsd) "${as_root[@]}" systemctl disable --now "$package" >&2 || true ;;
        esac
    done
}

# What `cargo build` needs: Rust, and a C compiler, make and cmake for the libraries in C.
need_build_tools() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH="$HOME/.cargo/bin:$PATH"; fi
    command -v cargo >/dev/null || die "cargo is missing: install Rust from https://rustup.rs, then run this again"
    need_commands cc:gcc make:make cmake:cmake || die "build tools are missing (above)"
}
