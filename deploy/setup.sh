#!/bin/sh
# Installs what the build and the tests need from the system, if it is missing. Debian and its relatives.
set -eu

missing=
need() { # command package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need c++ g++
need make make
need curl curl
need python3 python3
need sha256sum coreutils
need wrk wrk
need h2load nghttp2-client
need strip binutils
need strace strace
need systemd-analyze systemd
need promtool prometheus
# An auditor checks by hand with these.
need jq jq
# Clients that the server is tested with.
need node nodejs
need npm npm
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
need openssl openssl
need xxd xxd
# The database's bindings are made with libclang and its headers: the unversioned name comes with both.
if ! ls /usr/lib/llvm-*/lib/libclang.so >/dev/null 2>&1; then
    missing="$missing libclang-dev"
fi
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "please install:$missing" >&2
    exit 1
fi
echo "installing:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
# $missing is a list of packages.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
