#!/bin/bash
# Builds the cluster if it is missing, starts it with the images of this program, runs the checks, and ends it without a trace but
# the built programs. run.sh PROGRAM PYTHON [CHECK...]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export KUBE_LAB=${KUBE_LAB:-$HOME/.cache/cairn/kube}
program=$1
python=$2
shift 2
bash "$here/build.sh"
trap 'bash "$here/down.sh"' EXIT
bash "$here/down.sh"
bash "$here/up.sh"
for _ in $(seq 120); do
    bash "$here/in.sh" kubectl get nodes 2>/dev/null | grep -q ' Ready' && break
    sleep 1
done
bash "$here/images.sh" "$program" "$(cd "$here/../.." && pwd)"
"$python" "$here/check.py" "$@"
