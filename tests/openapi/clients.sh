#!/bin/sh
# Generates clients from openapi.json with three generators, compiles them, and stores, lists and verifies an event with each.
# Usage: clients.sh URL PYTHON_BIN WORK; installs the generators of npm and Go into WORK.
set -eu
url=$1
python=$2
work=$3
here=$(cd "$(dirname "$0")" && pwd)
document=$here/../../src/serve/openapi.json
mkdir -p "$work"

# A parser that does not let the last of two equal keys win.
"$python/python" - "$document" <<'PYTHON'
import json, sys
def unique(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"a key twice in {keys}"
    return dict(pairs)
json.load(open(sys.argv[1]), object_pairs_hook=unique)
PYTHON

rm -rf "$work/cairn_client"
"$python/openapi-python-client" generate --path "$document" --meta none --output-path "$work/cairn_client" > "$work/python.log"
# It knows no Protobuf, which exporters send; everything else must be there.
if grep -A 3 WARNING "$work/python.log" | grep -v -e WARNING -e '^--$' -e '^$' -e 'Unsupported content type application/x-protobuf' -e '^{$'; then
    echo "openapi-python-client left something out: $work/python.log" >&2
    exit 1
fi
PYTHONPATH=$work "$python/python" "$here/clients/client.py" "$url"

mkdir -p "$work/typescript"
cp "$here/clients/client.ts" "$here/clients/package.json" "$work/typescript"
cd "$work/typescript"
npm install --silent --no-audit --no-fund
npx openapi-typescript "$document" --output schema.d.ts > /dev/null
npx tsc --strict --module nodenext --target es2022 client.ts
node client.js "$url"

if ! command -v go > /dev/null 2>&1; then
    echo "SKIPPED: oapi-codegen needs Go 1.24 or later"
    exit 0
fi
mkdir -p "$work/go/cairn"
cd "$work/go"
cp "$here/clients/client.go" main.go
[ -x "$work/oapi-codegen" ] || GOBIN=$work go install github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2
"$work/oapi-codegen" -generate types,client -package cairn -o cairn/cairn.go "$document"
[ -f go.mod ] || go mod init example.com/client 2> /dev/null
go mod tidy > /dev/null 2>&1
go vet ./...
go run . "$url"
