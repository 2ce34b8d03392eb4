"""What the charts take from elsewhere: the schema of `config` from the program, the table of values from schema and values.yaml.

generated.py CAIRN writes both: make chart-docs. `make deploy-check` fails while they differ.
"""
import json
import pathlib
import subprocess
import sys

import yaml

CHARTS = ("cairn-lib", "cairn")
# The lines between which a README has the table.
BEGIN, END = "<!-- Made by `make chart-docs`. -->", "<!-- The end of the table. -->"
WIDTH = 120


def config_schema(binary):
    """The schema of `config` in the values of a chart, which is one of a configuration file."""
    schema = json.loads(subprocess.run([binary, "config", "schema"], capture_output=True, check=True).stdout)
    for key in ("$schema", "title"):
        del schema[key]
    return {"description": "Any key of config/cairn.yaml", **schema, "type": "object"}


def pretty(value, indent=0, used=0):
    """JSON in which everything that fits is on one line. `used` is the length of what precedes it there."""
    line = json.dumps(value, ensure_ascii=False)
    if max(indent, used) + len(line) < WIDTH or not isinstance(value, (dict, list)) or not value:
        return line
    inner, outer = " " * (indent + 2), " " * indent
    if isinstance(value, list):
        entries = [pretty(entry, indent + 2) for entry in value]
        return "[\n" + ",\n".join(inner + entry for entry in entries) + f"\n{outer}]"
    names = {key: f"{inner}{json.dumps(key)}: " for key in value}
    entries = [names[key] + pretty(entry, indent + 2, len(names[key]) + 1) for key, entry in value.items()]
    return "{\n" + ",\n".join(entries) + f"\n{outer}}}"


def schema_text(chart, binary):
    """values.schema.json as it has to be."""
    schema = json.loads((chart / "values.schema.json").read_text())
    schema["properties"]["config"] = config_schema(binary)
    return pretty(schema) + "\n"


def readme_text(chart):
    """README.md as it has to be; None if the chart has none."""
    path = chart / "README.md"
    if not path.exists():
        return None
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    values = yaml.safe_load((chart / "values.yaml").read_text())
    properties = json.loads((chart / "values.schema.json").read_text())["properties"]
    rows = ["| setting | default | meaning |", "|---|---|---|", *_rows(values, properties, "")]
    return before + BEGIN + "\n\n" + "\n".join(rows) + "\n\n" + END + after


def _rows(values, properties, path):
    for key, default in values.items():
        schema = properties[key]
        if "properties" in schema and key != "config":
            yield from _rows(default, schema["properties"], f"{path}{key}.")
        else:
            text = json.dumps(default, ensure_ascii=False)
            text = f"`{text}`" if len(text) < 60 else "see values.yaml"
            yield f"| `{path}{key}` | {text} | {schema.get('description', '')} |"


def main():
    binary = pathlib.Path(sys.argv[1]).resolve(strict=True)
    for name in CHARTS:
        chart = pathlib.Path(__file__).resolve().parents[2] / "deploy/helm" / name
        (chart / "values.schema.json").write_text(schema_text(chart, binary))
        if (text := readme_text(chart)) is not None:
            (chart / "README.md").write_text(text)


if __name__ == "__main__":
    main()
