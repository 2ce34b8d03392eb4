"""What each part of the check is given, and how it says what it found."""
import tomllib
import traceback
from dataclasses import dataclass
from pathlib import Path


class Wrong(Exception):
    """Something is not as it has to be. The message is a sentence that says what and where."""


def need(holds, sentence):
    if not holds:
        raise Wrong(sentence)


@dataclass
class Context:
    repository: Path
    # The program, which says itself whether it would start with a configuration.
    binary: Path
    # Where kubectl is: beside the python that runs this.
    tools: Path
    # For everything that is written. It goes with the check.
    temp: Path
    passed: int = 0
    failed: int = 0

    def version(self):
        """Of the program: charts, images and labels have the same."""
        return tomllib.loads((self.repository / "Cargo.toml").read_text())["package"]["version"]

    def item(self, part, name, check, *arguments):
        """One line of the output. What is wrong ends this item alone, so that one run shows all that is wrong."""
        try:
            seen = check(*arguments)
        except Wrong as wrong:
            self._print_failure(part, name, str(wrong))
        except Exception as error:  # A manifest of a shape that no rule expected is as wrong as one that breaks a rule.
            self._print_failure(part, name, f"{type(error).__name__}: {error}")
            traceback.print_exc()
        else:
            self.passed += 1
            print(f"{part:8} {name:38} {seen}", flush=True)

    def _print_failure(self, part, name, sentence):
        self.failed += 1
        print(f"{part:8} {name:38} WRONG: {sentence}", flush=True)
