"""Checks the files that put Cairn somewhere: charts, kustomize, examples, and what watches it.

Usage: check.py CAIRN [PART], the program and one of the parts below. Nothing here needs the network or a cluster.
"""
import argparse
import importlib
import pathlib
import sys
import tempfile

from context import Context

# Modules with a function run(context).
PARTS = ("charts", "overlays", "watch", "machine")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cairn", type=pathlib.Path, help="the program")
    parser.add_argument("part", nargs="?", choices=PARTS, help="only this part")
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
    print(f"{context.passed} as they should be, {context.failed} wrong")
    return 1 if context.failed or not context.passed else 0


if __name__ == "__main__":
    sys.exit(main())
