#!/bin/sh
# Assembles the root file system of the image: the program, the libraries it is linked to, CA certificates, one user.
# Used by the Dockerfile and by tests/ops/pod.rs.
# root.sh PROGRAM DIRECTORY
set -eu
program=$1
root=$2
here=$(dirname "$0")

install -D -m 755 "$program" "$root/cairn"
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$library" "$root$library"
done
install -D -m 644 "$here/cairn.yaml" "$root/etc/cairn/cairn.yaml"
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo 'cairn:x:10001:10001:cairn:/var/lib/cairn:/usr/sbin/nologin' > "$root/etc/passwd"
echo 'cairn:x:10001:' > "$root/etc/group"
# Without it, the resolver asks DNS before the pod's /etc/hosts.
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
mkdir -p "$root/proc" "$root/dev" "$root/sys" "$root/var/lib/cairn"
mkdir -p -m 1777 "$root/tmp"

# The packages and licenses of these libraries, for vulnerability scanners.
for package in libc6 libgcc-s1 ca-certificates; do
    mkdir -p "$root/var/lib/dpkg/status.d" "$root/usr/share/doc/$package"
    dpkg -s "$package" > "$root/var/lib/dpkg/status.d/$package"
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
done
# This library is a part of the program.
mkdir -p "$root/usr/share/doc/libstdc++6"
cp -L /usr/share/doc/libstdc++6/copyright "$root/usr/share/doc/libstdc++6/"
