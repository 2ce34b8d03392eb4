"""Checks the deployment files: charts, kustomize, examples, monitoring, image and service.

Usage: check.py CAIRN [PART], with the cairn binary and one of the parts below. Needs neither a network nor a cluster.
"""
import argparse
import importlib
import pathlib
import sys
import tempfile

from context import Context

# Modules with a function run(context).
PARTS = ("charts", "overlays", "watch", "machine", "server")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cairn", type=pathlib.Path, help="the cairn binary")
    parser.add_argument("part", nargs="?", choices=PARTS, help="check only this part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cairn-deploy-") as temp:
        context = Context(
            repository=pathlib.Path(__file__).resolve().parents[2],
            binary=options.cairn.resolve(strict=True),
            tools=pathlib.Path(sys.executable).parent,
            temp=pathlib.Path(temp),
        )
        for part in [options.part] if options.part else PARTS:
            importlib.import_module(part).run(context)
    for line in [*context.skipped, *context.failures]:
        print(line[:2000])
    print(f"{context.passed} checks passed, {len(context.failures)} failed, {len(context.skipped)} skipped")
    return 1 if context.failures or not (context.passed or context.skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
