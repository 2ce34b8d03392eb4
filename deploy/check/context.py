"""The context of all checks: paths, and the report of results."""
import tomllib
import traceback
from dataclasses import dataclass, field
from pathlib import Path


class CheckFailed(Exception):
    """A check failed. The message is a sentence that states what is wrong, and where."""


def require(condition, message):
    if not condition:
        raise CheckFailed(message)


@dataclass
class Context:
    repository: Path
    # The `cairn` binary, which validates configurations.
    binary: Path
    # The directory of kubectl, next to the running Python.
    tools: Path
    # A directory for everything that is written. It is deleted after the check.
    temp: Path
    passed: int = 0
    # The lines of the failed checks, which are printed again at the end.
    failures: list = field(default_factory=list)
    # The lines of what this machine cannot check.
    skipped: list = field(default_factory=list)

    def version(self):
        """The version of Cairn, which charts, images and labels must have, too."""
        return tomllib.loads((self.repository / "Cargo.toml").read_text())["package"]["version"]

    def run_check(self, part, name, check, *arguments):
        """Runs one check and prints one line. A failure ends only this check, so that one run reports all failures."""
        try:
            result = check(*arguments)
        except CheckFailed as failure:
            self._print_failure(part, name, str(failure))
        except Exception as error:  # A manifest of an unexpected shape is a failure, too.
            self._print_failure(part, name, f"{type(error).__name__}: {error}")
            traceback.print_exc()
        else:
            self.passed += 1
            print(f"{part:8} {name:38} {result}", flush=True)

    def skip(self, part, name, why):
        """Reports something that cannot be checked here."""
        line = f"{part:8} {name:38} SKIPPED: {why}"
        self.skipped.append(line)
        print(line, flush=True)

    def _print_failure(self, part, name, message):
        line = f"{part:8} {name:38} FAILED: {message}"
        self.failures.append(line)
        print(line, flush=True)
