"""Runs the external checkers."""
import subprocess

from context import CheckFailed


def run_tool(command, text=None):
    """Runs a program and returns its standard output. Fails with its output if the exit status is not 0."""
    done = subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailed(f"{command[0]} exits with {done.returncode}: {(done.stderr + done.stdout).strip()}")
    return done.stdout
