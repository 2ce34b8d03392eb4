#!/bin/sh
# Uses generated clients with a running server, then sends requests that openapi.json permits, and requests that it does not,
# and checks the answers against it: no 500, no undocumented status, no undocumented body. Uses only the loopback interface.
# Usage: run.sh CAIRN DIRECTORY_OF_TOOLS [SEED]
set -eu
cairn=$1
tools=$2
seed=${3:-1}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
upstream=
server=
trap 'kill $server $upstream 2>/dev/null; wait; rm -rf "$work"' EXIT
python3 "$here/upstream.py" > "$work/upstream" &
upstream=$!
wait_for() { # file
    for _ in $(seq 100); do
        [ -s "$1" ] && return
        sleep 0.1
    done
    echo "timed out: $1 is empty" >&2
    exit 1
}
wait_for "$work/upstream"
CAIRN_LISTEN=127.0.0.1:0 CAIRN_ADMIN__LISTEN=127.0.0.1:0 CAIRN_STORAGE__DATA_DIR="$work/data" \
    CAIRN_LOG__CHECKPOINT_INTERVAL=50ms CAIRN_RELAY__AGNOST__ENDPOINT="http://$(cat "$work/upstream")" \
    CAIRN_RELAY__AGNOST__ORG_ID=6c748a17-a2da-4c40-bfec-10008a6b3eed "$cairn" serve > "$work/log" &
server=$!
url() {
    jq -r 'select(.message == "cairn is ready") | .listen' "$work/log" > "$work/url"
}
for _ in $(seq 100); do
    url
    [ -s "$work/url" ] && break
    sleep 0.1
done
wait_for "$work/url"
sh "$here/clients.sh" "http://$(cat "$work/url")" "$tools/bin" "$tools/clients"
# The requests of OTLP are described there, in more detail than a generator of clients understands.
"$tools/bin/python" - "$here/../../src/serve/openapi.json" "$here/otlp.json" > "$work/openapi.json" <<'PYTHON'
import json, sys
document, otlp = (json.load(open(path)) for path in sys.argv[1:])
document["components"]["schemas"] |= otlp["components"]["schemas"]
json.dump(document, sys.stdout)
PYTHON
# Schemathesis writes files to its working directory.
cp "$here/schemathesis.toml" "$here/hooks.py" "$work"
cd "$work"
PYTHONPATH=. timeout 600 "$tools/bin/schemathesis" run openapi.json \
    --url "http://$(cat "$work/url")" --checks all --phases examples,coverage,fuzzing,stateful --seed "$seed" --no-color
if grep -q panicked "$work/log"; then
    grep panicked "$work/log"
    exit 1
fi
