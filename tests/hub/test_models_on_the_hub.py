"""Models: pushed by one process, loaded by others, whose caches are empty, with the package and without it."""

import pytest
from clients import client
from faces import astronaut
from fresh import error_of, in_fresh_process
from tiny import TRAVELLING_FILES

from geli_hf import GeliRewardModel

SAID = (
    "i walked my dog",
    "how lovely",
    "we found a river",
    "and what then",
    "my brother saw a train",
    "really",
    "yes",
)
ROLES = ("user", "assistant")
DIALOGUES = [
    [{"role": ROLES[(i + first) % 2], "content": text} for i, text in enumerate(SAID[:length])]
    for length, first in ((6, 0), (7, 0), (3, 1))
]


def push(dialogues):
    import contextlib
    import io

    import numpy as np
    import torch
    from datasets import Dataset
    from huggingface_hub import snapshot_download
    from peft import LoraConfig, get_peft_model
    from tiny import reward_model, session

    from geli_hf import FacialAffectConfig, FacialAffectImageProcessor, FacialAffectModel, HindsightAttribution
    from geli_hf.alignment import small_policy
    from geli_hf.cli import main
    from geli_hf.data.rows import write_jsonl
    from geli_hf.hub.cards import facial_affect_card, policy_card, save_card

    found = {}

    # A reward model: its main branch, a pull request and a branch that say something else, and a private one.
    model = reward_model("bert", context_messages=4)
    found["main"] = model.score_messages(dialogues).tolist()
    model.save_pretrained("reward")
    found["commit"] = model.push_to_hub("owner/reward").oid
    template = model.tokenizer.chat_template
    for name, options in {"refs/pr/1": {"create_pr": True}, "next": {"revision": "next"}}.items():
        with torch.no_grad():
            model.score.out.weight *= -2
        model.tokenizer.chat_template = f"{{# {name} #}}{template}"
        model.push_to_hub("owner/reward", **options)
        found[name] = model.score_messages(dialogues).tolist()
    model.push_to_hub("org/private", private=True)

    # A teacher.
    attribution = HindsightAttribution(model, np.zeros(32), np.linspace(-1, 1, 32), signals={})
    attribution.push_to_hub("owner/attribution")
    found["attribution"] = attribution.score_sessions([{"messages": dialogues[1]}])[0]["parts"]["reaction"]

    # A classifier of faces and its image processor.
    torch.manual_seed(0)
    labels = dict(enumerate(("happiness", "neutral", "sadness")))
    face = FacialAffectModel(FacialAffectConfig(hidden_sizes=[8, 8, 8], id2label=labels)).eval()
    torch.nn.init.normal_(list(face.parameters())[-2], std=1.0)
    processor = FacialAffectImageProcessor({"height": 64, "width": 64}, 0.9, 0.05)
    for part in (face, processor):
        part.save_pretrained("face")
    save_card(facial_affect_card("face", config=face.config, scale=0.9, shift=0.05), "face")
    with contextlib.redirect_stdout(io.StringIO()):
        main(["push", "model", "face", "--repo", "owner/face"])
    picture = (torch.arange(64 * 64 * 3).reshape(64, 64, 3) % 251).to(torch.uint8).numpy()
    found["face"] = face(**processor(picture, return_tensors="pt")).logits[0].tolist()

    # What is fetched by `hf download`, and never loaded here; and sessions.
    model.push_to_hub("org/fetched")
    snapshot_download("org/fetched")
    write_jsonl(Dataset.from_list([session(4) | {"rater_id": "ann"}]), "sessions.jsonl")
    with contextlib.redirect_stdout(io.StringIO()):
        main(["push", "dataset", "sessions.jsonl", "--repo", "owner/sessions"])

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
    adapted.push_to_hub("owner/adapters", revision="first")  # without a tokenizer
    for name, adapter in {"owner/policy": False, "owner/adapter": True}.items():  # in place of a form, or of none
        policy_card(name, base_model="owner/policy", adapter=adapter).push_to_hub(name)
    with torch.no_grad():
        found["adapter"] = adapted.eval()(torch.arange(10)[None]).logits[0, -1].tolist()
    return found


def load_with_the_package(dialogues, commit):
    import torch
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    from geli_hf import GeliRewardModel, HindsightAttribution
    from geli_hf.alignment import load_policy

    found = {}
    for revision in ("main", "refs/pr/1", "next", commit):
        model = GeliRewardModel.from_pretrained("owner/reward", revision=revision)
        found[revision] = model.score_messages(dialogues).tolist()
        found[f"template of {revision}"] = model.tokenizer.chat_template
    attribution = HindsightAttribution.from_pretrained("owner/attribution", revision="main")
    found["attribution"] = attribution.score_sessions([{"messages": dialogues[1]}])[0]["parts"]["reaction"]
    model = AutoModelForSequenceClassification.from_pretrained("org/private")
    found["private"] = model.score_messages(dialogues).tolist()
    face = AutoModelForImageClassification.from_pretrained("owner/face")
    found["modules"] = [type(part).__module__ for part in (model, face)]
    policy, _ = load_policy("owner/adapter")
    with torch.no_grad():
        found["adapter"] = policy(torch.arange(10)[None]).logits[0, -1].tolist()
        policy, _ = load_policy("owner/adapters", revision="first")
        found["adapter of a revision"] = policy(torch.arange(10)[None]).logits[0, -1].tolist()
    return found


def open_every_door(owner):
    """Load an owner's files by our functions and by transformers'; return each error, or None."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, pipeline

    from geli_hf import (
        FacialAffectImageProcessor,
        FacialAffectModel,
        GeliRewardModel,
        HindsightAttribution,
        ImageAffect,
        load_sessions,
    )
    from geli_hf.alignment import GeliReward, load_policy
    from geli_hf.models.loading import open_model

    def a_pipeline(task):
        return lambda name: pipeline(task, model=name, device="cpu", trust_remote_code=task == "turn-rewards")

    ours = {
        "reward": {
            "model": GeliRewardModel.from_pretrained,
            "command": open_model,
            "reward function": GeliReward,
        },
        "attribution": {"model": HindsightAttribution.from_pretrained, "command": open_model},
        "face": {
            "model": FacialAffectModel.from_pretrained,
            "image processor": FacialAffectImageProcessor.from_pretrained,
            "reader": ImageAffect,
        },
        "policy": {"policy": load_policy, "backbone": GeliRewardModel.from_backbone},
        "adapter": {"policy": load_policy},
        "sessions": {"sessions": load_sessions},
    }
    theirs = {
        "reward": {
            "auto class": AutoModelForSequenceClassification.from_pretrained,
            "pipeline": a_pipeline("text-classification"),
            "our pipeline": a_pipeline("turn-rewards"),
        },
        "face": {
            "auto class": AutoModelForImageClassification.from_pretrained,
            "pipeline": a_pipeline("image-classification"),
        },
        "policy": {"pipeline": a_pipeline("text-generation")},
        "adapter": {"pipeline": a_pipeline("text-generation")},
    }
    return [
        {
            f"{repo}: {door}": error_of(load, f"{owner}/{repo}")
            for repo, loads in doors.items()
            for door, load in loads.items()
        }
        for doors in (ours, theirs)
    ]


def run_the_blocks(repos, first_only=False):
    """The Python blocks of each card, as it stands on the Hub: how many there are, and what they left or printed."""
    import contextlib
    import io
    import re

    from huggingface_hub import hf_hub_download

    found = {}
    for repo in repos:
        repo_type = "dataset" if "sessions" in repo else "model"
        with open(hf_hub_download(repo, "README.md", repo_type=repo_type), encoding="utf-8") as file:
            blocks = re.findall(r"^```python\n(.*?)^```$", file.read(), re.DOTALL | re.MULTILINE)
        names = {}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            for code in blocks[:1] if first_only else blocks:
                exec(code, names)
        row = names["session"]["turn_rewards"] if "session" in names else names.get("reply") or names.get("emotion")
        found[repo] = [len(blocks), row or printed.getvalue()]
    return found


def push_and_load(dialogues, cards):
    pushed = push(dialogues)
    loaded, doors = load_with_the_package(dialogues, pushed["commit"]), open_every_door("owner")
    return pushed | {"blocks": run_the_blocks(cards)}, loaded, doors


def load_offline(dialogues, commit):
    from geli_hf import GeliRewardModel

    loaded = load_with_the_package(dialogues, commit)
    fetched = GeliRewardModel.from_pretrained("org/fetched").score_messages(dialogues).tolist()
    return loaded, fetched, open_every_door("owner"), open_every_door("nobody")


def load_without_the_package(dialogues, cards):
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
    # Without an answer about the code, AutoTokenizer would ask: it reads the model's configuration first.
    tokenizer = AutoTokenizer.from_pretrained("owner/reward", trust_remote_code=False)
    texts = tokenizer.apply_chat_template(dialogues, tokenize=False)
    classify = pipeline("text-classification", model="owner/reward", trust_remote_code=True, device="cpu")
    found["pipeline"] = [row["score"] for row in classify(texts)]  # no sigmoid
    reward = pipeline("turn-rewards", model="owner/reward", trust_remote_code=True, device="cpu")
    found["turn-rewards"] = [[turn["reward"] for turn in turns] for turns in reward(dialogues)]
    found["turns"] = [turn["index"] for turn in reward(dialogues[1])]
    found["turns of a user"] = reward(dialogues[0][:1])

    face = AutoModelForImageClassification.from_pretrained("owner/face", trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained("owner/face", trust_remote_code=True)
    picture = (torch.arange(64 * 64 * 3).reshape(64, 64, 3) % 251).to(torch.uint8).numpy()
    found["face"] = face(**processor(picture, return_tensors="pt")).logits[0].tolist()
    found["modules"] = [type(part).__module__.split(".")[0] for part in (model, face, processor)]

    adapted = AutoPeftModelForCausalLM.from_pretrained("owner/adapter").eval()
    with torch.no_grad():
        found["adapter"] = adapted(torch.arange(10)[None]).logits[0, -1].tolist()

    found["blocks"] = run_the_blocks(cards, first_only=True)
    found["no trust"] = error_of(load, "owner/reward", trust_remote_code=False)
    found["private"] = error_of(load, "org/private", trust_remote_code=True)
    model = load("org/private", trust_remote_code=True, token="hf_owner")
    found["with a token"] = model.score_messages(dialogues).tolist()
    found["wrong token"] = error_of(load, "owner/reward", trust_remote_code=True, token="hf_wrong", revision="next")
    found["no revision"] = error_of(load, "owner/reward", trust_remote_code=True, revision="none")
    found["no right"] = error_of(model.push_to_hub, "owner/reward", token="hf_reader")
    found["no token"] = error_of(model.push_to_hub, "owner/reward")
    return found


# How many Python blocks the cards have, all of which run where the package is; and of which the first needs none.
BLOCKS = {
    "owner/reward": 1,
    "owner/face": 2,
    "owner/attribution": 1,
    "owner/policy": 1,
    "owner/adapter": 2,
    "owner/sessions": 1,
}
ALONE = ["owner/reward", "owner/face", "owner/policy", "owner/adapter"]


def draw_faces(folder):
    """The pictures that the blocks read."""
    astronaut().save(folder / "picture.jpg")
    astronaut().crop((174, 66, 273, 165)).save(folder / "face.jpg")


@pytest.fixture(scope="module")
def pushed(shared_hub, tmp_path_factory):
    """Outputs of the models before the push and after loading, and the folder of that process."""
    folder = tmp_path_factory.mktemp("pushing")
    environment = client(shared_hub, folder, "hf_owner")
    draw_faces(folder)
    helpers, told = (push, load_with_the_package, open_every_door, run_the_blocks), {"dialogues": DIALOGUES}
    pushed, loaded, doors = in_fresh_process(
        push_and_load, folder, environment, helpers=helpers, cards=list(BLOCKS), **told
    )
    assert not any(said for each in doors for said in each.values()), doors
    return pushed, loaded, folder


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
            "owner/attribution",
            "org/private",
        )
    }
    always = {".gitattributes", "README.md"}
    tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert files["owner/reward"] == always | tokenizer | TRAVELLING_FILES | {"config.json", "model.safetensors"}
    assert files["org/private"] == files["owner/reward"]
    assert files["owner/attribution"] == files["owner/reward"] | {"hindsight.json", "hindsight.safetensors"}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "modeling_affect.py"} < files["owner/face"]
    assert files["owner/policy"] >= tokenizer | {"config.json", "model.safetensors"}
    assert files["owner/adapter"] >= tokenizer | {"adapter_config.json", "adapter_model.safetensors"}
    assert not any(path.endswith((".bin", ".pt", ".pkl", ".pyc")) for paths in files.values() for path in paths)
    # One push of a model is one commit, after that which makes the repository.
    reward = shared_hub.store.repos["model", "owner/reward"]
    assert len(reward.history(reward.at("main"))) == 2
    assert shared_hub.store.repos["model", "org/private"].private


@pytest.mark.parametrize("name", BLOCKS)
def test_the_code_of_its_card_on_the_hub_runs(name, shared_hub, pushed):
    blocks, gave = pushed[0]["blocks"][name]
    assert blocks == BLOCKS[name]
    assert gave
    repo = shared_hub.store.repos["dataset" if name == "owner/sessions" else "model", name]
    assert f'"{name}"' in shared_hub.store.read(repo, "README.md").decode()


def check_loaded(found, expected):
    assert found["modules"] == [
        "geli_hf.models.geli_reward.modeling_geli",
        "geli_hf.models.facial_affect.modeling_affect",
    ]
    for revision in ("main", "refs/pr/1", "next"):
        assert same(found[revision], expected[revision]), revision
    assert not same(expected["main"], expected["refs/pr/1"])
    assert same(found[expected["commit"]], expected["main"])
    assert same(found["private"], expected["next"])
    for part in ("adapter", "attribution"):
        assert same(found[part], expected[part]), part
    assert same(found["adapter of a revision"], expected["adapter"])
    for name in ("refs/pr/1", "next"):  # the tokenizer is of the same revision
        assert found[f"template of {name}"].startswith(f"{{# {name} #}}")


def test_it_loads_with_the_package(pushed):
    expected, loaded, _ = pushed
    check_loaded(loaded, expected)


def test_cached_repositories_load_offline(shared_hub, pushed):
    expected, _, folder = pushed
    asked = len(shared_hub.requests)
    environment = client(shared_hub, folder, HF_HUB_OFFLINE="1")
    helpers, told = (load_with_the_package, open_every_door), {"dialogues": DIALOGUES, "commit": expected["commit"]}
    loaded, fetched, warm, (ours, theirs) = in_fresh_process(
        load_offline, folder, environment, helpers=helpers, **told
    )
    check_loaded(loaded, expected)
    assert same(fetched, expected["next"])
    assert not any(said for each in warm for said in each.values()), warm
    for door, said in ours.items():
        if door.endswith((": command", ": policy", ": sessions")):
            assert "HF_HUB_OFFLINE is set" in said, (door, said)
            assert "`hf download " in said, (door, said)
    for door, said in (ours | theirs).items():  # the client's own words
        client_s = ("couldn't find them in the cached files", "Can't load image processor", "Couldn't reach")
        assert any(words in said for words in client_s), (door, said)
    assert len(shared_hub.requests) == asked


def test_it_loads_without_the_package_and_without_a_token(shared_hub, pushed, tmp_path):
    environment = client(shared_hub, tmp_path)
    draw_faces(tmp_path)
    told = {"dialogues": DIALOGUES, "cards": ALONE}
    found = in_fresh_process(
        load_without_the_package, tmp_path, environment, helpers=(run_the_blocks,), geli_hf=False, **told
    )
    assert set(found["modules"]) == {"transformers_modules"}
    expected = pushed[0]
    for way, name in {
        "main": "main",
        "pipeline": "main",
        "refs/pr/1": "refs/pr/1",
        "with a token": "next",
    }.items():
        assert same(found[way], expected[name]), way
    for part in ("face", "adapter"):
        assert same(found[part], expected[part]), part
    model = GeliRewardModel.from_pretrained(pushed[2] / "reward")
    every = model.score_messages(DIALOGUES, last_turn_only=False).tolist()
    for turns, row in zip(found["turn-rewards"], every):
        assert same(turns, [reward for reward in row if reward == reward])
    assert found["turns"] == [i for i, message in enumerate(DIALOGUES[1]) if message["role"] == "assistant"]
    assert found["turns of a user"] == []
    # What the cards show runs.
    assert set(found["blocks"]) == set(ALONE)
    assert same(found["blocks"]["owner/reward"][1], expected["blocks"]["owner/reward"][1])
    assert found["blocks"]["owner/face"][1]["label"] == expected["blocks"]["owner/face"][1]["label"]
    assert all("generated_text" in found["blocks"][name][1] for name in ("owner/policy", "owner/adapter"))
    # What is refused says what to do.
    assert "trust_remote_code=True" in found["no trust"]
    assert "hf auth login" in found["private"]
    assert "none is not a valid git identifier" in found["no revision"]
    assert "401" in found["wrong token"]
    assert "write token" in found["no right"]
    assert "401" in found["no token"]
