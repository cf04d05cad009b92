"""`import geli_hf` is light, and afterwards the Auto classes know our model, whichever was imported first."""

import json
import shutil
import subprocess
import sys

import pytest
from faces import affect_checkpoint
from tiny import reward_model, talk
from transformers import AutoConfig

import geli_hf


def python(code: str) -> str:
    """Output of `code` in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-W", "error::FutureWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = reward_model("bert")
    model.save_pretrained(folder)
    return folder, model.score_messages([talk(6)]).item()


def test_the_import_is_as_light_as_that_of_transformers():
    """Counted in modules: seconds depend on the machine."""
    loaded = python(
        "import sys, transformers; before = set(sys.modules); import geli_hf\n"
        "print(*sorted(name for name in set(sys.modules) - before))"
    ).split()
    foreign = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"geli_hf"}
    assert len(loaded) < 20
    heavy = "torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "datasets", "trl", "peft"
    assert python(f"import sys, transformers, geli_hf; print([name for name in {heavy} if name in sys.modules])") == (
        python(f"import sys, transformers; print([name for name in {heavy} if name in sys.modules])")
    )


ORDERS = {
    "geli_hf first": "import geli_hf\nfrom transformers import AutoModel, AutoModelForSequenceClassification",
    "AutoModel first": "from transformers import AutoModel, AutoModelForSequenceClassification\nimport geli_hf",
    "AutoConfig first": "from transformers import AutoConfig\nimport geli_hf\n"
    "from transformers import AutoModel, AutoModelForSequenceClassification",
    "our model first": "from geli_hf import GeliRewardModel\n"
    "from transformers import AutoModel, AutoModelForSequenceClassification",
}


@pytest.mark.parametrize("order", ORDERS)
def test_no_flag_is_needed_in_any_order_of_imports(order, checkpoint):
    """And with the flag, the installed code still wins over the checkpoint's."""
    folder, expected = checkpoint
    found = python(
        f"{ORDERS[order]}\n"
        "for door, flag in ((AutoModel, {}), (AutoModelForSequenceClassification, {'trust_remote_code': True})):\n"
        f"    model = door.from_pretrained({str(folder)!r}, **flag)\n"
        f"    print(type(model).__module__, model.score_messages([{talk(6)!r}]).item())\n"
    ).split()
    assert found[0::2] == ["geli_hf.models.geli_reward.modeling_geli"] * 2
    assert [float(score) for score in found[1::2]] == pytest.approx([expected] * 2, rel=1e-5)


AFFECT_ORDERS = {
    "geli_hf first": "import geli_hf\nfrom transformers import AutoImageProcessor, AutoModelForImageClassification",
    "Auto classes first": "from transformers import AutoImageProcessor, AutoModelForImageClassification\n"
    "import geli_hf",
    "our model first": "from geli_hf import FacialAffectModel\n"
    "from transformers import AutoImageProcessor, AutoModelForImageClassification",
    "our processor first": "from geli_hf import FacialAffectImageProcessor\n"
    "from transformers import AutoImageProcessor, AutoModelForImageClassification",
}


@pytest.mark.parametrize("order", AFFECT_ORDERS)
def test_the_classifier_of_faces_needs_no_flag_either(order, tmp_path):
    folder = affect_checkpoint(tmp_path)
    found = python(
        f"{AFFECT_ORDERS[order]}\n"
        "for door, flag in ((AutoModelForImageClassification, {}), (AutoImageProcessor, {}),\n"
        "    (AutoModelForImageClassification, {'trust_remote_code': True}),\n"
        "    (AutoImageProcessor, {'trust_remote_code': True})):\n"
        f"    print(type(door.from_pretrained({str(folder)!r}, **flag)).__module__)\n"
    ).split()
    assert (
        found
        == ["geli_hf.models.facial_affect.modeling_affect", "geli_hf.models.facial_affect.image_processing_affect"] * 2
    )


def test_every_public_name_is_there_and_no_other():
    import geli_hf

    for name in geli_hf.__all__:
        assert name.isupper() or getattr(geli_hf, name).__name__ == name
        assert name in dir(geli_hf)
    with pytest.raises(AttributeError, match="'GeliModel'"):
        _ = geli_hf.GeliModel


@pytest.mark.parametrize("name", ["reward", "face"])
def test_a_newer_toolkit_is_named_with_what_to_upgrade(name, checkpoint, tmp_path):
    folder = tmp_path / name
    if name == "reward":
        shutil.copytree(checkpoint[0], folder)
    else:
        affect_checkpoint(folder)
    config = json.loads((folder / "config.json").read_text())
    written = config["geli_hf_version"]
    assert written == geli_hf.__version__
    major, minor, patch = written.split(".")
    for version, refused in ((f"{major}.{minor}.{int(patch) + 1}", False), (f"{major}.{int(minor) + 1}.0", True)):
        changed = config | {"geli_hf_version": version}
        if refused:  # what it says is more to the point than that this value is unknown
            changed |= {"head": "of tomorrow", "dropout": "of tomorrow"}
        (folder / "config.json").write_text(json.dumps(changed))
        if not refused:
            assert AutoConfig.from_pretrained(folder).geli_hf_version == written
            continue
        with pytest.raises(ValueError, match=rf"written by geli-hf {version}, .* {written} here\. Upgrade geli-hf"):
            AutoConfig.from_pretrained(folder)


def test_a_configuration_of_before_there_was_a_version_loads(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint[0], tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["geli_hf_version"]
    (folder / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(folder).head == config["head"]
