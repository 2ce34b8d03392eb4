#!/bin/sh
# Puts together what the image has: the program, the libraries that it is linked to, the certificates of authorities, one user.
# The Dockerfile runs this, and so does the test that plays the life of a pod.
# root.sh PROGRAM FOLDER
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
# Without it the names of a pod's own /etc/hosts are asked for last.
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
mkdir -p "$root/proc" "$root/dev" "$root/sys" "$root/var/lib/cairn"
mkdir -p -m 1777 "$root/tmp"

# Whose libraries these are, for those who look for known faults in images, and under which terms.
for package in libc6 libgcc-s1 libstdc++6 ca-certificates; do
    mkdir -p "$root/var/lib/dpkg/status.d" "$root/usr/share/doc/$package"
    dpkg -s "$package" > "$root/var/lib/dpkg/status.d/$package"
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
done
