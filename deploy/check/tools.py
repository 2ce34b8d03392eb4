"""Running the programs that judge."""
import subprocess

from context import Wrong


def run_tool(command, text=None):
    """What a program prints that has nothing to complain of. Otherwise its complaint."""
    done = subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"{command[0]} ends with {done.returncode}: {(done.stderr + done.stdout).strip()}")
    return done.stdout
