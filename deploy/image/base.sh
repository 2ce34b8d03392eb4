#!/bin/sh
# Makes the base image of the Dockerfile's build stage from Debian packages and the Rust toolchain of this machine, for engines
# without access to a registry of images. Needs root, buildah and mmdebstrap.
# base.sh DIRECTORY, which has the images, apart from those of this machine
set -eu
version=$(sed -n 's/^FROM \(rust:[^ ]*\) .*/\1/p' "$(dirname "$0")/../Dockerfile")
folder=$1
engine() {
    command=$1
    shift
    buildah --root "$folder/storage" --runroot "$folder/run" "$command" "$@"
}

if engine inspect --type image "docker.io/library/$version" >/dev/null 2>&1; then
    exit 0
fi
mkdir -p "$folder"
root=$folder/base.tar
if [ ! -f "$root" ]; then
    mmdebstrap --quiet --variant=minbase --include=ca-certificates,g++,git,libc6-dev,make bookworm "$folder/part.tar"
    mv "$folder/part.tar" "$root"
fi
container=$(engine from scratch)
engine add --quiet "$container" "$root" /
# Compiler, standard library and cargo.
for part in bin lib libexec; do
    engine add --quiet "$container" "$(rustc --print sysroot)/$part" "/usr/local/$part"
done
# The network of this machine may have authorities of its own.
engine add --quiet "$container" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
engine config --env PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
engine commit --quiet --rm "$container" "docker.io/library/$version"
