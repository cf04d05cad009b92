"""The Hub's checks of a README's front matter, before a commit and in one.

It follows the Hub's documentation of repository cards and of Spaces' configuration. What is unknown is let through, as
the Hub does.
"""

import re
from datetime import date

import yaml

LICENSES = set(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc
    cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
    cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1
    eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl
    apple-ascl mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
    lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3
    llama4 gemma unknown other
    """.split()  # noqa: SIM905
)
REPO_ID = re.compile(r"(?:[\w][\w.-]*/)?[\w][\w.-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z]+)*|code|multilingual")
SDKS = ("gradio", "docker", "static", "streamlit")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
EMPTY = "empty or missing yaml metadata in repo card"


def front_matter(content: str) -> str | None:
    """The YAML between the two lines of dashes, None where a card does not begin with it."""
    found = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", content, re.DOTALL | re.MULTILINE)
    return found and found[1]


def metadata(content: str) -> dict:
    """Read a card's front matter; empty if it can't be read."""
    try:
        data = yaml.safe_load(front_matter(content) or "")
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def validate(content: str, repo_type: str) -> tuple[list[str], list[str]]:
    """The errors, for which the Hub refuses a card, and the warnings, for which it does not."""
    text = front_matter(content)
    if text is None:
        errors = ["Missing configuration in README"] if repo_type == "space" else []
        return errors, [EMPTY]
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"], []
    if data is None:
        return [], [EMPTY]
    if not isinstance(data, dict):
        return ["metadata must be of type object"], []
    errors = [*_common(data)]
    if repo_type == "space":
        errors += _space(data)
    if repo_type == "model":
        errors += _model_index(data.get("model-index", []))
    if repo_type == "dataset":
        errors += _configs(data.get("configs", []))
    return errors, []


def _texts(data: dict, key: str):
    """The values of a field that takes one text or a list of them; what is not a text comes as None."""
    values = data.get(key, [])
    for value in values if isinstance(values, list) else [values]:
        yield value if isinstance(value, str) else None


def _common(data: dict):
    for value in _texts(data, "license"):
        if value not in LICENSES:
            yield f'"license" must be one of [{", ".join(sorted(LICENSES))}]'
    for value in _texts(data, "language"):
        if value is None or not LANGUAGE.fullmatch(value):
            yield f'"language" must be an ISO 639 code, "code" or "multilingual"; found {value}'
    for key in ("base_model", "datasets", "models"):
        for value in _texts(data, key):
            if value is None or not REPO_ID.fullmatch(value):
                yield f'"{key}" with value "{value}" is not valid. Use a model id from the Hub: owner/name'
    for key in ("tags", "metrics"):
        if not isinstance(data.get(key, []), list) or None in _texts(data, key):
            yield f'"{key}" must be an array of strings'
    for key in ("pipeline_tag", "library_name", "title", "emoji", "app_file", "license_name"):
        if not isinstance(data.get(key, ""), str):
            yield f'"{key}" must be a string'


def _space(data: dict):
    if data.get("sdk") not in SDKS:
        yield f'"sdk" must be one of [{", ".join(SDKS)}]'
    if not isinstance(data.get("sdk_version", ""), str):  # YAML reads 6.3 as a number
        yield '"sdk_version" must be a string'
    for key in ("colorFrom", "colorTo"):
        if data.get(key, "red") not in COLOURS:
            yield f'"{key}" must be one of [{", ".join(COLOURS)}]'
    if len(str(data.get("short_description", ""))) > 60:
        yield '"short_description" length must be less than or equal to 60 characters long'
    if re.search(r"[\w\s]", data["emoji"]) if isinstance(data.get("emoji"), str) else False:
        yield '"emoji" must be an emoji'
    if not isinstance(data.get("pinned", False), bool):
        yield '"pinned" must be a boolean'


def _model_index(models):
    """A name, and results with a task, a dataset and metrics that have a type and a value."""
    if not isinstance(models, list):
        yield '"model-index" must be an array'
        return
    for i, model in enumerate(models):
        at = f"model-index[{i}]"
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            yield f'"{at}.name" is required'
            continue
        for j, result in enumerate(model.get("results") or []):
            task, dataset, metrics = (result.get(key) or {} for key in ("task", "dataset", "metrics"))
            at = f"model-index[{i}].results[{j}]"
            if not task.get("type"):
                yield f'"{at}.task.type" is required'
            for key in ("name", "type"):
                if not dataset.get(key):
                    yield f'"{at}.dataset.{key}" is required'
            if not metrics:
                yield f'"{at}.metrics" must contain at least 1 items'
            for k, metric in enumerate(metrics):
                for key in ("type", "value"):
                    if metric.get(key) is None:
                        yield f'"{at}.metrics[{k}].{key}" is required'
                if isinstance(metric.get("value"), date):
                    yield f'"{at}.metrics[{k}].value" must not be a date'


def _configs(configs):
    if not isinstance(configs, list):
        yield '"configs" must be an array'
        return
    names = [config.get("config_name") if isinstance(config, dict) else None for config in configs]
    if not all(isinstance(name, str) for name in names):
        yield '"configs" must have a config_name each'
    elif len(set(names)) < len(names):
        yield '"configs" contains a config_name twice'
