"""Checks the files of the charts: versions, settings, schemas, and the settings that deploy/README.md names."""
import json
import re
from pathlib import Path

import jsonschema

import generated
import manifests
from context import Context, require

# Settings whose defaults or schemas differ between the charts, with the reason.
DIFFERENT = {
    "storage": "a claim instead of an emptyDir, and the events of several agents",
    "resources": "any client may send the largest bodies to a central Cairn",
}
# Words of deploy/README.md that look like settings: file names, and fields of a pod.
NO_SETTINGS = {"log.key", "log.checkpoint", "sidecar.yaml", "securityContext.fsGroup"}
QUOTED = re.compile(r"`(?:cairn\.)?(\w+(?:\.\w+)+)(?:: [^`]*)?`")
SET = re.compile(r"--set (?:cairn\.)?([\w.]+)=")


def run(context: Context, folder: Path):
    context.run_check("charts", "versions", _check_versions, context)
    context.run_check("charts", "settings of both charts", _check_shared, folder)
    for chart in ("cairn-lib", "cairn"):
        context.run_check("charts", f"{chart} schema", _check_schema, folder / chart)
        context.run_check("charts", f"{chart} generated parts", _check_generated, context, chart)
    context.run_check("charts", "schema of the configuration", _check_config_schema, context)
    context.run_check("charts", "settings in deploy/README.md", _check_readme, context, folder)


def _check_versions(context):
    version = context.version()
    for chart in ("cairn-lib", "cairn"):
        metadata = _chart_file(context, chart)
        for key in ("version", "appVersion"):
            require(str(metadata[key]) == version, f"{chart}: {key} is {metadata[key]}, but Cargo.toml has {version}")
    for chart in ("example", "cairn"):
        dependency = _chart_file(context, chart)["dependencies"][0]
        require(
            dependency["version"] == version,
            f"{chart}: it depends on cairn-lib {dependency['version']}, not {version}",
        )
    return version


def _chart_file(context, chart):
    return manifests.load((context.repository / "deploy/helm" / chart / "Chart.yaml").read_text())[0]


def _check_shared(folder):
    """Settings of the same name have the same defaults and schemas in both charts."""
    library, central = (_settings_and_schema(folder / chart) for chart in ("cairn-lib", "cairn"))
    shared = set(library[0]) & set(central[0])
    for key in sorted(shared - set(DIFFERENT)):
        require(library[0][key] == central[0][key], f"{key} has different defaults")
        require(library[1][key] == central[1][key], f"{key} has different schemas")
    for key, reason in DIFFERENT.items():
        is_different = library[0][key] != central[0][key]
        require(is_different, f"{key} is listed as different ({reason}), but is not")
    only = set(library[0]) - shared
    require(only == {"sidecar"}, f"the chart cairn has no {', '.join(sorted(only - {'sidecar'}))}")
    return f"{len(shared) - len(DIFFERENT)} are the same"


def _settings_and_schema(chart):
    schema = json.loads((chart / "values.schema.json").read_text())
    return manifests.load((chart / "values.yaml").read_text())[0], schema["properties"]


def _check_schema(chart):
    """Schema and values.yaml have the same settings: the schema rejects others, and values.yaml documents them."""
    settings, properties = _settings_and_schema(chart)
    return f"{_compare(settings, properties, '', {'global', 'cairn-lib'})} settings"


def _check_generated(context, name):
    """The schema of `config` is the program's, and the table of the README has every setting."""
    chart = context.repository / "deploy/helm" / name
    wanted = {"values.schema.json": generated.schema_text(chart, context.binary), "README.md": generated.readme_text(chart)}
    for file, text in wanted.items():
        is_same = text is None or text == (chart / file).read_text()
        require(is_same, f"{name}/{file} is not up to date: make chart-docs")
    return "up to date"


def _check_config_schema(context):
    """The program's schema has the settings of config/cairn.yaml, accepts our files, and rejects unknown names and types."""
    schema = generated.config_schema(context.binary)
    complete = manifests.load((context.repository / "config/cairn.yaml").read_text())[0]
    files = [*(context.repository / "config").glob("*.yaml"), *(context.repository / "deploy").glob("*/cairn.yaml")]
    accepted = [manifests.load(path.read_text())[0] for path in files if path.parent.name != "examples"]
    for config in accepted:
        jsonschema.validate(config, schema)
    refused = [{"bogus": 1}, {"log": {"levle": "info"}}, {"storage": {"sync": "yes"}}, {"shards": "one"}, {"auth": []}]
    refused += [{"log": {"format": "xml"}}, {"limits": {"events_per_second": "many"}}, {"log": {"checkpoint_interval": "soon"}}]
    for config in refused:
        is_refused = not jsonschema.Draft7Validator(schema).is_valid(config)
        require(is_refused, f"the schema accepts {config}")
    names = set(_leaves(complete))
    missing = [name for name in names if not _described(schema, name.split("."))]
    require(not missing, f"the schema lacks {', '.join(sorted(missing))}")
    return f"{len(names)} settings, {len(accepted)} files accepted, {len(refused)} mistakes refused"


def _leaves(node, path=""):
    for key, value in node.items():
        yield from _leaves(value, f"{path}{key}.") if isinstance(value, dict) and value else [f"{path}{key}"]


def _described(schema, names):
    for name in names:
        if "properties" not in schema:
            return True
        if name not in schema["properties"]:
            return False
        schema = schema["properties"][name]
    return True


def _compare(settings, properties, path, allowed):
    missing, undescribed = set(settings) - set(properties), set(properties) - set(settings) - allowed
    require(not missing, f"values.schema.json has no {path}{', '.join(sorted(missing))}")
    require(not undescribed, f"values.yaml has no {path}{', '.join(sorted(undescribed))}")
    # That of `config` is the program's.
    below = [key for key in settings if "properties" in properties[key] and key != "config"]
    for key in below:
        require(properties[key].get("additionalProperties") is False, f"{path}{key} accepts unknown names")
    counts = [_compare(settings[key], properties[key]["properties"], f"{path}{key}.", set()) for key in below]
    return len(settings) - len(below) + sum(counts)


def _check_readme(context, folder):
    """Every setting that the document names exists, in a chart or in Cairn's configuration."""
    text = (context.repository / "deploy/README.md").read_text()
    sources = [manifests.load((context.repository / "config/cairn.yaml").read_text())[0]]
    sources += [_settings_and_schema(folder / chart)[0] for chart in ("cairn-lib", "cairn")]
    sections = {key for settings in sources for key in settings}
    named = {path for path in QUOTED.findall(text) + SET.findall(text) if path.split(".")[0] in sections} - NO_SETTINGS
    # `config` of a chart accepts every key of Cairn's configuration.
    named = {path.removeprefix("config.") for path in named}
    for path in sorted(named):
        require(any(_has(settings, path) for settings in sources), f"setting {path} does not exist")
    require(named, "it names no setting")
    return f"{len(named)} settings"


def _has(settings, path):
    for key in path.split("."):
        if not isinstance(settings, dict) or key not in settings:
            return False
        settings = settings[key]
    return True
