#!/bin/sh
# Builds the release artifacts in dist/: an archive, a Debian package, a Python wheel, an SBOM, checksums.
# release.sh DIRECTORY_OF_TOOLS
set -eu
cd "$(dirname "$0")/.."
PATH=$1/bin:$PATH
target=${CARGO_TARGET_DIR:-target}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse --short=12 HEAD)
[ -z "$(git status --porcelain)" ] || revision=$revision-modified
# Files have the time of the commit, so that the same sources produce the same archive. Not for compilation: the
# database would be compiled again for every commit, which takes a quarter of an hour and changes nothing.
commit_time=$(git log -1 --format=%ct)
name=cairn-$version-$(uname -m)-linux
stage=dist/$name

rm -rf dist
mkdir -p "$stage/man" "$stage/completions"

# With the list of crates. The wrapper applies to the workspace's crates only: the database is not compiled again.
BUILD_REVISION=$revision cargo auditable build --release --locked --bin cairn
BUILD_REVISION=$revision cargo auditable build --release --locked -p cairn-proof --bin cairn-verify
for program in cairn cairn-verify; do
    install -m 755 "$target/release/$program" "$stage/$program"
    strip --remove-section=.comment "$stage/$program"
    # RHEL 9 and Amazon Linux 2023 have glibc 2.34, and an older C++ library than the one here.
    newest=$(objdump -T "$stage/$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    if [ "$(printf '%s\n' GLIBC_2.34 "$newest" | sort -V | tail -n 1)" != GLIBC_2.34 ]; then
        echo "$program needs $newest, later than 2.34: $(objdump -T "$stage/$program" | grep "$newest")" >&2
        exit 1
    fi
    if objdump -p "$stage/$program" | grep -E 'NEEDED.*(stdc\+\+|c\+\+)|GLIBC_ABI_DT_RELR'; then
        echo "$program needs more than glibc 2.34 and libgcc" >&2
        exit 1
    fi
done

# On a processor without SSE4.2 it says so.
if [ "$(uname -m)" = x86_64 ]; then
    status=0
    qemu-x86_64 -cpu core2duo "$stage/cairn" --version 2> dist/startup || status=$?
    if [ "$status" != 3 ] || ! grep -q 'this processor lacks SSE4.2' dist/startup; then
        echo "an old processor gets status $status and: $(cat dist/startup)" >&2
        exit 1
    fi
    rm dist/startup
    qemu-x86_64 -cpu Westmere "$stage/cairn" --version
fi

"$stage/cairn" man --folder "$stage/man"
"$stage/cairn" completions bash > "$stage/completions/cairn"
"$stage/cairn" completions zsh > "$stage/completions/_cairn"
"$stage/cairn" completions fish > "$stage/completions/cairn.fish"
cp -r LICENSE README.md SECURITY.md CHANGELOG.md docs config "$stage/"
# With the same places relative to each other, because their links name them.
mkdir -p "$stage/deploy"
cp -r deploy/README.md deploy/monitoring deploy/systemd "$stage/deploy/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$commit_time" \
    -C dist -czf "dist/$name.tar.gz" "$name"

# The SBOM covers only the program, not the dependencies of tests.
SOURCE_DATE_EPOCH=$commit_time cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps \
    --target "$(rustc -vV | sed -n 's/^host: //p')"
# Remove the path of the build directory.
sed "s|path+file://$PWD|cairn|g" cairn_bin.cdx.json > "dist/$name.cdx.json"
find . -name '*.cdx.json' -not -path './dist/*' -delete

# cargo-deb takes the staged files: see Cargo.toml. Whoever publishes the package is its contact, by the variables of
# Debian's tools.
ln -sfn "$name" dist/staged
maintainer="${DEBFULLNAME:-The Cairn authors} <${DEBEMAIL:-cairn@localhost}>"
cat > dist/changelog <<CHANGELOG
cairn ($version-1) unstable; urgency=medium

  * Package of version $version, revision $revision.
    Changes: /usr/share/doc/cairn/changelog.gz

 -- $maintainer  $(date -R -u -d "@$commit_time")
CHANGELOG
SOURCE_DATE_EPOCH=$commit_time cargo deb --quiet --no-build --no-strip --maintainer "$maintainer" --output dist/
rm dist/staged dist/changelog
if [ -n "${DEBEMAIL:-}" ]; then
    lintian --allow-root --fail-on error,warning dist/*.deb
else
    echo "DEBEMAIL is not set: the package has no contact, so do not publish it" >&2
    lintian --allow-root --fail-on error,warning --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog dist/*.deb
fi

# The same program for `pip install`, because developers of agents have that.
(
    out=$PWD/dist
    cd deploy/python
    BUILD_REVISION=$revision "$1/python/bin/maturin" build --release --locked --strip --quiet \
        --out "$out" --compatibility manylinux_2_34 --auditwheel check
)
python3 -m venv --clear dist/venv
dist/venv/bin/pip install --quiet --disable-pip-version-check --no-index dist/*.whl
[ "$(dist/venv/bin/cairn --version)" = "$("$stage/cairn" --version)" ]
rm -r dist/venv

cd dist
sha256sum -- *.tar.gz *.deb *.whl *.cdx.json > SHA256SUMS
ls -l
