#!/bin/sh
# Runs each target for some seconds, with the seeds of seed.py and the corpus of earlier runs.
# Usage: run.sh SECONDS CAIRN CORPUS TARGET...
set -eu
seconds=$1
cairn=$2
corpus=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/seed.py" "$cairn" "$corpus"
cd "$corpus"
for target in "$@"; do
    name=$(basename "$target")
    echo "== $name"
    mkdir -p "$corpus/$name" "$corpus/found"
    # A finding is printed, and stored here.
    "$target" "$corpus/$name" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$corpus/found/$name-" -print_final_stats=1 -verbosity=0 > "$corpus/$name.log" 2>&1 || {
        tail -n 30 "$corpus/$name.log"
        exit 1
    }
    grep -E 'number_of_executed_units|peak_rss_mb' "$corpus/$name.log"
done
echo "no findings"
