"""What docs/testing.md lists for Kubernetes: charts, examples and overlays in a real cluster, under crashes, roll-outs and load.

check.py [NAME...], with parts of the names of checks; all of them by default. The cluster runs already: see run.sh.
"""
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

import central
import sidecar
from cluster import Failed, Namespace

CHECKS = (*sidecar.CHECKS, *central.CHECKS)


def main():
    wanted, failed = sys.argv[1:], []
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        if wanted and not any(part in name for part in wanted):
            continue
        started, namespace = time.monotonic(), Namespace(check.__name__.replace("_", "-")[:50].strip("-"))
        try:
            with tempfile.TemporaryDirectory() as folder:
                result = check(namespace, Path(folder))
            print(f"ok      {name}: {result} ({time.monotonic() - started:.0f} s)", flush=True)
        except Exception as error:  # An answer of an unexpected shape is a failure, too.
            failed.append(name)
            print(f"FAILED  {name}: {error}", flush=True)
            if not isinstance(error, Failed):
                traceback.print_exc()
            for pod in namespace.pods(""):
                statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
                states = {status["name"]: (status["state"], status["restartCount"]) for status in statuses}
                print(f"        {pod['metadata']['name']}: {json.dumps(states)}", flush=True)
        namespace.delete()
    print(f"{len(failed)} of {len(CHECKS)} checks failed{': ' if failed else ''}{', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
