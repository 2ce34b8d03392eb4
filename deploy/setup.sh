#!/bin/sh
# Installs what a target needs from the system, if it is missing. Debian and its relatives.
# setup.sh build|test|interop|deploy|release|aarch64|image|kube|bench...
set -eu

missing=
need() { # command package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
# promtool comes with the server of Prometheus, whose package starts a service on port 9090: only its program is taken.
need_promtool() {
    command -v promtool >/dev/null 2>&1 || promtool=missing
}
promtool=
for group in "$@"; do
    case $group in
    build)
        need c++ g++
        need make make
        # The database's bindings are generated with libclang and its headers: the unversioned name comes with both.
        if ! ls /usr/lib/llvm-*/lib/libclang.so >/dev/null 2>&1; then
            missing="$missing libclang-dev"
        fi
        ;;
    test)
        # What the documents' code blocks use, and how tests make system calls fail.
        need curl curl
        need jq jq
        need openssl openssl
        need python3 python3
        # A terminal for a program.
        need script bsdutils
        need sha256sum coreutils
        need strace strace
        need strip binutils
        need xxd xxd
        ;;
    interop)
        need chromium chromium
        need javac default-jdk-headless
        need mvn maven
        need node nodejs
        need npm npm
        need python3 python3
        python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
        ;;
    deploy)
        need curl curl
        need_promtool
        need python3 python3
        need systemd-analyze systemd
        # A Debian server, in which the package is tried.
        need systemd-nspawn systemd-container
        need mmdebstrap mmdebstrap
        python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
        ;;
    release)
        need lintian lintian
        need objdump binutils
        need python3 python3
        # A processor without SSE4.2.
        need qemu-x86_64 qemu-user
        need strip binutils
        python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
        ;;
    aarch64)
        need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
        need curl curl
        need qemu-aarch64 qemu-user
        ;;
    image)
        need buildah buildah
        need mmdebstrap mmdebstrap
        need podman podman
        python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
        ;;
    kube)
        need conntrack conntrack
        need containerd containerd
        need curl curl
        need ethtool ethtool
        need gcc gcc
        need iptables iptables
        need jq jq
        need mmdebstrap mmdebstrap
        need openssl openssl
        need runc runc
        need socat socat
        [ -e /usr/lib/cni/bridge ] || missing="$missing containernetworking-plugins"
        python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
        ;;
    bench)
        need curl curl
        need h2load nghttp2-client
        need python3 python3
        need wrk wrk
        python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
        ;;
    *)
        echo "setup.sh: unknown group $group" >&2
        exit 2
        ;;
    esac
done
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
[ -n "${missing# }$promtool" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "please install: $missing${promtool:+promtool}" >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
if [ -n "${missing# }" ]; then
    echo "installing: $missing"
    # $missing is a list of packages.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
fi
if [ -n "$promtool" ]; then
    echo "installing: promtool"
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -qq prometheus && dpkg-deb --extract prometheus_*.deb .)
    $sudo install -D -m 755 "$folder/usr/bin/promtool" /usr/local/bin/promtool
    rm -r "$folder"
fi
