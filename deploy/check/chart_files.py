"""What the files of the charts have in common: versions, settings, and what README files say of them."""
import json
import re
from pathlib import Path

import manifests
from context import Context, need

# Settings of both charts with different defaults or schemas.
DIFFERENT = {
    "storage": "a claim is not an emptyDir, and several agents have more events than one",
    "resources": "anybody may send the largest bodies to a central collector",
}
# Written like settings in deploy/README.md: files, and what only a pod says.
NO_SETTINGS = {"log.key", "log.checkpoint", "sidecar.yaml", "securityContext.fsGroup"}
QUOTED = re.compile(r"`(?:cairn\.)?(\w+(?:\.\w+)+)(?:: [^`]*)?`")
SET = re.compile(r"--set (?:cairn\.)?([\w.]+)=")


def run(context: Context, folder: Path):
    context.item("charts", "versions", _check_versions, context)
    context.item("charts", "settings of both charts", _check_shared, folder)
    for chart in ("cairn-lib", "cairn"):
        context.item("charts", f"{chart} schema", _check_schema, folder / chart)
    context.item("charts", "settings in deploy/README.md", _check_readme, context, folder)


def _check_versions(context):
    version = context.version()
    for chart in ("cairn-lib", "cairn"):
        told = _chart_file(context, chart)
        for key in ("version", "appVersion"):
            need(str(told[key]) == version, f"{chart}: {key} is {told[key]}, and Cargo.toml says {version}")
    for chart in ("example", "cairn"):
        dependency = _chart_file(context, chart)["dependencies"][0]
        need(dependency["version"] == version, f"{chart}: it asks for cairn-lib {dependency['version']}, not {version}")
    return version


def _chart_file(context, chart):
    return manifests.load((context.repository / "deploy/helm" / chart / "Chart.yaml").read_text())[0]


def _check_shared(folder):
    """Who knows the settings of one chart knows those of the other."""
    library, central = (_settings_and_schema(folder / chart) for chart in ("cairn-lib", "cairn"))
    shared = set(library[0]) & set(central[0])
    for key in sorted(shared - set(DIFFERENT)):
        need(library[0][key] == central[0][key], f"{key} has different defaults")
        need(library[1][key] == central[1][key], f"{key} has different schemas")
    for key, reason in DIFFERENT.items():
        is_different = library[0][key] != central[0][key]
        need(is_different, f"{key} is listed as different ({reason}), and is not")
    only = set(library[0]) - shared
    need(only == {"sidecar"}, f"the chart cairn has no {', '.join(sorted(only - {'sidecar'}))}")
    return f"{len(shared) - len(DIFFERENT)} are the same"


def _settings_and_schema(chart):
    schema = json.loads((chart / "values.schema.json").read_text())
    return manifests.load((chart / "values.yaml").read_text())[0], schema["properties"]


def _check_schema(chart):
    """A setting that is not in the schema cannot be written, one that is not in values.yaml is not described."""
    settings, properties = _settings_and_schema(chart)
    return f"{_compare(settings, properties, '', {'global', 'cairn-lib'})} settings"


def _compare(settings, properties, path, allowed):
    missing, undescribed = set(settings) - set(properties), set(properties) - set(settings) - allowed
    need(not missing, f"values.schema.json has no {path}{', '.join(sorted(missing))}")
    need(not undescribed, f"values.yaml has no {path}{', '.join(sorted(undescribed))}")
    below = [key for key in settings if "properties" in properties[key]]
    for key in below:
        need(properties[key].get("additionalProperties") is False, f"{path}{key} takes any name")
    counts = [_compare(settings[key], properties[key]["properties"], f"{path}{key}.", set()) for key in below]
    return len(settings) - len(below) + sum(counts)


def _check_readme(context, folder):
    """What it calls a setting is one, of a chart or of Cairn."""
    text = (context.repository / "deploy/README.md").read_text()
    known = [manifests.load((context.repository / "config/cairn.yaml").read_text())[0]]
    known += [_settings_and_schema(folder / chart)[0] for chart in ("cairn-lib", "cairn")]
    sections = {key for settings in known for key in settings}
    told = {path for path in QUOTED.findall(text) + SET.findall(text) if path.split(".")[0] in sections} - NO_SETTINGS
    # Any key of Cairn's may stand under `config` of a chart.
    told = {path.removeprefix("config.") for path in told}
    for path in sorted(told):
        need(any(_has(settings, path) for settings in known), f"there is no setting {path}")
    need(told, "it names no setting")
    return f"{len(told)} settings"


def _has(settings, path):
    for key in path.split("."):
        if not isinstance(settings, dict) or key not in settings:
            return False
        settings = settings[key]
    return True
