#!/bin/sh
# Builds the OpenTelemetry Collector of collector.yaml into a directory, unless it already contains it. Only this step needs the
# network.
# build.sh DIRECTORY
set -eu
folder=$1
manifest=$(dirname "$0")/collector.yaml
version=$(sed -n 's/^ *version: //p' "$manifest")
if ! command -v go >/dev/null 2>&1; then
    echo "build.sh: please install Go 1.26 or later" >&2
    exit 1
fi
if ! cmp -s "$manifest" "$folder/built.yaml"; then
    mkdir -p "$folder"
    cp "$manifest" "$folder/collector.yaml"
    GOBIN="$folder" go install "go.opentelemetry.io/collector/cmd/builder@v$version"
    (cd "$folder" && ./builder --config collector.yaml)
    mv "$folder/source/otelcol" "$folder/otelcol"
    mv "$folder/collector.yaml" "$folder/built.yaml"
fi
