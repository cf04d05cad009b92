"""Models: pushed by one process, loaded by others, whose caches are empty, with the package and without it."""

import pytest
from clients import client
from fresh import error_of, in_fresh_process
from tiny import talk

DIALOGUES = [talk(6), talk(9, seed=1), talk(3, seed=2, first="assistant")]
CODE = {"configuration_geli.py", "modeling_geli.py"}


def push(dialogues):
    import torch
    from peft import LoraConfig, get_peft_model
    from tiny import reward_model, session

    from geli_hf import FacialAffectConfig, FacialAffectImageProcessor, FacialAffectModel
    from geli_hf.alignment import small_policy

    found = {}

    # A reward model: its main branch, a pull request and a branch that say something else, and a private one.
    model = reward_model("bert", context_messages=4)
    found["main"] = model.score_messages(dialogues).tolist()
    found["commit"] = model.push_to_hub("owner/reward").oid
    for name, options in {"refs/pr/1": {"create_pr": True}, "next": {"revision": "next"}}.items():
        with torch.no_grad():
            model.score.out.weight *= -2
        model.push_to_hub("owner/reward", **options)
        found[name] = model.score_messages(dialogues).tolist()
    model.push_to_hub("org/private", private=True)

    # A classifier of faces and its image processor.
    torch.manual_seed(0)
    labels = dict(enumerate(("happiness", "neutral", "sadness")))
    face = FacialAffectModel(FacialAffectConfig(hidden_sizes=[8, 8, 8], id2label=labels)).eval()
    torch.nn.init.normal_(list(face.parameters())[-2], std=1.0)
    processor = FacialAffectImageProcessor({"height": 64, "width": 64}, 0.9, 0.05)
    for part in (face, processor):
        part.push_to_hub("owner/face")
    picture = (torch.arange(64 * 64 * 3).reshape(64, 64, 3) % 251).to(torch.uint8).numpy()
    found["face"] = face(**processor(picture, return_tensors="pt")).logits[0].tolist()

    # A policy, and an adapter to it.
    policy, tokenizer = small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300)
    for part in (policy, tokenizer):
        part.push_to_hub("owner/policy")
    torch.manual_seed(0)
    policy.name_or_path = "owner/policy"
    adapted = get_peft_model(policy, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    for part in (adapted, tokenizer):
        part.push_to_hub("owner/adapter")
    with torch.no_grad():
        found["adapter"] = adapted.eval()(torch.arange(10)[None]).logits[0, -1].tolist()
    return found


def load_with_the_package(dialogues, commit):
    import torch
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    from geli_hf import GeliRewardModel
    from geli_hf.alignment import load_policy

    found = {}
    for revision in ("main", "refs/pr/1", "next", commit):
        model = GeliRewardModel.from_pretrained("owner/reward", revision=revision)
        found[revision] = model.score_messages(dialogues).tolist()
    model = AutoModelForSequenceClassification.from_pretrained("org/private")
    found["private"] = model.score_messages(dialogues).tolist()
    face = AutoModelForImageClassification.from_pretrained("owner/face")
    found["modules"] = [type(part).__module__ for part in (model, face)]
    policy, _ = load_policy("owner/adapter")
    with torch.no_grad():
        found["adapter"] = policy(torch.arange(10)[None]).logits[0, -1].tolist()
    return found


def load_without_the_package(dialogues):
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        pipeline,
    )

    found, load = {}, AutoModelForSequenceClassification.from_pretrained
    for revision in ("main", "refs/pr/1"):
        model = load("owner/reward", revision=revision, trust_remote_code=True)
        found[revision] = model.score_messages(dialogues).tolist()
    texts = AutoTokenizer.from_pretrained("owner/reward").apply_chat_template(dialogues, tokenize=False)
    classify = pipeline("text-classification", model="owner/reward", trust_remote_code=True, device="cpu")
    found["pipeline"] = [row["score"] for row in classify(texts, function_to_apply="none")]

    face = AutoModelForImageClassification.from_pretrained("owner/face", trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained("owner/face", trust_remote_code=True)
    picture = (torch.arange(64 * 64 * 3).reshape(64, 64, 3) % 251).to(torch.uint8).numpy()
    found["face"] = face(**processor(picture, return_tensors="pt")).logits[0].tolist()
    found["modules"] = [type(part).__module__.split(".")[0] for part in (model, face, processor)]

    adapted = AutoPeftModelForCausalLM.from_pretrained("owner/adapter").eval()
    with torch.no_grad():
        found["adapter"] = adapted(torch.arange(10)[None]).logits[0, -1].tolist()

    found["no trust"] = error_of(load, "owner/reward", trust_remote_code=False)
    found["private"] = error_of(load, "org/private", trust_remote_code=True)
    found["wrong token"] = error_of(load, "owner/reward", trust_remote_code=True, token="hf_wrong", revision="next")
    found["no revision"] = error_of(load, "owner/reward", trust_remote_code=True, revision="none")
    found["no right"] = error_of(model.push_to_hub, "owner/reward", token="hf_reader")
    found["no token"] = error_of(model.push_to_hub, "owner/reward")
    return found


@pytest.fixture(scope="module")
def pushed(shared_hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pushing")
    return in_fresh_process(push, folder, client(shared_hub, folder, "hf_owner"), dialogues=DIALOGUES)


def same(found, expected) -> bool:
    return found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_model_is_pushed_with_all_it_takes_to_load_it(shared_hub, pushed):
    files = {
        name: set(shared_hub.store.repos["model", name].at("main").files)
        for name in (
            "owner/reward",
            "owner/face",
            "owner/policy",
            "owner/adapter",
            "org/private",
        )
    }
    always = {".gitattributes", "README.md"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert files["owner/reward"] == always | tokenizer | CODE | {"config.json", "model.safetensors"}
    assert files["org/private"] == files["owner/reward"]
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "modeling_affect.py"} < files["owner/face"]
    assert files["owner/policy"] >= tokenizer | {"config.json", "model.safetensors"}
    assert files["owner/adapter"] >= tokenizer | {"adapter_config.json", "adapter_model.safetensors"}
    assert not any(path.endswith((".bin", ".pt", ".pkl", ".pyc")) for paths in files.values() for path in paths)
    # One push of a model is one commit, after that which makes the repository.
    reward = shared_hub.store.repos["model", "owner/reward"]
    assert len(reward.history(reward.at("main"))) == 2
    assert shared_hub.store.repos["model", "org/private"].private


def test_it_loads_with_the_package(shared_hub, pushed, tmp_path):
    environment = client(shared_hub, tmp_path, "hf_owner")
    arguments = {"dialogues": DIALOGUES, "commit": pushed["commit"]}
    for offline in (None, "1"):  # at first into an empty cache, and then from it
        asked = len(shared_hub.requests)
        environment["HF_HUB_OFFLINE"] = offline
        found = in_fresh_process(load_with_the_package, tmp_path, environment, **arguments)
        assert bool(offline) == (len(shared_hub.requests) == asked)
        assert found["modules"] == ["geli_hf.modeling_geli", "geli_hf.modeling_affect"]
        for revision in ("main", "refs/pr/1", "next"):
            assert same(found[revision], pushed[revision]), revision
        assert same(found[pushed["commit"]], pushed["main"])
        assert same(found["private"], pushed["next"])
        assert same(found["adapter"], pushed["adapter"])
    assert not same(pushed["main"], pushed["refs/pr/1"])


def test_it_loads_without_the_package_and_without_a_token(shared_hub, pushed, tmp_path):
    environment = client(shared_hub, tmp_path)
    found = in_fresh_process(load_without_the_package, tmp_path, environment, geli_hf=False, dialogues=DIALOGUES)
    assert set(found["modules"]) == {"transformers_modules"}
    for way, expected in {"main": "main", "pipeline": "main", "refs/pr/1": "refs/pr/1"}.items():
        assert same(found[way], pushed[expected]), way
    for part in ("face", "adapter"):
        assert same(found[part], pushed[part]), part
    # What is refused says what to do.
    assert "trust_remote_code=True" in found["no trust"]
    assert "hf auth login" in found["private"]
    assert "none is not a valid git identifier" in found["no revision"]
    assert "401" in found["wrong token"]
    assert "write token" in found["no right"]
    assert "401" in found["no token"]
