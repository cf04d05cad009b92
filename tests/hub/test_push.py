"""`geli push`: what a folder is, what is sent and what is not, and what the Hub holds afterwards."""

import io
import json
import shutil
import traceback
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from clients import client
from faces import affect_checkpoint
from fresh import in_fresh_process
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HTTPError
from loopback_hub import cards
from peft import LoraConfig, get_peft_model
from tiny import TRAVELLING_FILES, reward_model, session

import geli_hf
from geli_hf import load_sessions
from geli_hf.alignment import GeliReward, shipped_policy, small_policy
from geli_hf.data.rows import write_jsonl
from geli_hf.hub import push as pushing
from geli_hf.hub.folders import open_folder
from geli_hf.hub.push import explained_errors
from geli_hf.models.attribution import HindsightAttribution
from geli_hf.models.loading import is_attribution, open_model

TALK = [{"role": "user", "content": "i lost my dog"}, {"role": "assistant", "content": "how sad"}]
REWARD = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
REWARD |= TRAVELLING_FILES


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A folder of every kind, as it is saved."""
    root = tmp_path_factory.mktemp("folders")
    model = reward_model("bert", context_messages=4)
    model.save_pretrained(root / "reward model")
    HindsightAttribution(model, np.zeros(32), np.ones(32), signals={}).save_pretrained(root / "attribution")
    affect_checkpoint(root / "face classifier")
    policy, tokenizer = small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300)
    policy.save_pretrained(root / "policy")
    policy.name_or_path = policy.config._name_or_path = "owner/policy"
    adapter = get_peft_model(policy, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    adapter.save_pretrained(root / "adapter")
    for name in ("policy", "adapter"):
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture
def model(folders, tmp_path) -> Path:
    """A reward model's folder to change."""
    return Path(shutil.copytree(folders / "reward model", tmp_path / "model"))


def repo_of(hub, name, repo_type="model"):
    return hub.store.repos[repo_type, name]


def text(hub, name, path="README.md", repo_type="model", revision="main") -> str:
    return hub.store.read(repo_of(hub, name, repo_type), path, revision).decode()


def commits(hub, name, repo_type="model") -> int:
    repo = repo_of(hub, name, repo_type)
    return len(repo.history(repo.at("main")))


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("kind", ["reward model", "attribution", "face classifier", "policy", "adapter"])
def test_a_folder_is_known_by_its_config_and_goes_in_one_commit(kind, folders, here, push):
    said = push("model", folders / kind, "--repo", "owner/it")
    assert f": {kind}, " in said
    files = {path.name for path in (folders / kind).iterdir() if path.is_file()}
    if kind == "adapter":
        files.remove("README.md")  # the form that PEFT leaves says nothing
    assert ("without a card" in said) is ("README.md" not in files)
    assert commits(here, "owner/it") == 2  # the first makes the repository
    there = set(repo_of(here, "owner/it").at("main").files) - {".gitattributes"}
    assert files <= there


def test_a_reward_model_is_sent_with_its_code_and_without_what_a_trainer_keeps(model, here, push):
    for name in ("optimizer.pt", "rng_state.pth", "training_args.bin", "trainer_state.json", ".hidden"):
        (model / name).write_bytes(b"\x80\x02")
    (model / "modeling_geli.py").unlink()  # then it is the package's own
    (model / "checkpoint-3").mkdir()
    (model / "checkpoint-3" / "pytorch_model.bin").write_bytes(b"\x80\x02")
    push("model", model, "--repo", "owner/reward")
    assert set(repo_of(here, "owner/reward").at("main").files) == REWARD | {".gitattributes"}
    for name in REWARD:  # what test_models_on_the_hub loads in a process without the package
        here_too = model / name if (model / name).exists() else next(Path(geli_hf.__file__).parent.rglob(name))
        assert here.store.read(repo_of(here, "owner/reward"), name, "main") == here_too.read_bytes()


def test_the_guards_of_a_reward_go_with_it(model, here, push, tmp_path):
    folder = tmp_path / "guarded"
    GeliReward.from_pretrained(model, clip=2.5, name="warmth").save_pretrained(folder)
    push("model", folder, "--repo", "owner/guarded")
    assert set(repo_of(here, "owner/guarded").at("main").files) == REWARD | {".gitattributes", "geli_reward.json"}
    push("model", model, "--repo", "owner/plain")
    where = {"token": "hf_owner", "cache_dir": tmp_path / "cache"}
    guarded, plain = (GeliReward.from_pretrained(name, **where) for name in ("owner/guarded", "owner/plain"))
    assert (guarded.clip, guarded.__name__) == (2.5, "warmth")
    assert (plain.clip, plain.__name__) == (None, "geli")
    with pytest.raises(TypeError, match="clop"):
        GeliReward.from_pretrained("owner/guarded", clop=2.5, **where)


def test_a_dry_run_lists_all_and_asks_the_hub_nothing(model, here, push):
    (model / "README.md").write_text("# Mine\n")
    said = push("model", model, "--repo", "owner/reward", "--dry-run")
    assert here.requests == []
    rows = [line.rsplit(maxsplit=1) for line in said.splitlines()[1:] if line.endswith(tuple(REWARD | {"README.md"}))]
    assert {name: int(size.replace(",", "")) for size, name in rows} == {
        path.name: path.stat().st_size for path in model.iterdir()
    }
    assert said.endswith("# Mine\n\n")


def test_another_kind_of_model_is_not_replaced(folders, here, push, refusal):
    push("model", folders / "attribution", "--repo", "owner/it")
    before = commits(here, "owner/it")
    for kind in ("reward model", "policy"):
        assert "another kind of model (attribution)" in refusal("model", folders / kind, "--repo", "owner/it")
    push("model", folders / "attribution", "--repo", "owner/it")
    assert commits(here, "owner/it") == before


def test_private_pull_requests_and_branches(model, here, push, refusal):
    push("model", model, "--repo", "org/reward", "--private")
    assert repo_of(here, "org/reward").private
    (model / "README.md").write_text("# Another\n")
    assert "/discussions/1" in push("model", model, "--repo", "org/reward", "--create-pr")
    push("model", model, "--repo", "org/reward", "--revision", "next")
    assert commits(here, "org/reward") == 2
    for revision in ("refs/pr/1", "next"):
        assert text(here, "org/reward", revision=revision) == "# Another\n"
    push("model", model, "--repo", "owner/open")
    assert "--private: owner/open" in refusal("model", model, "--repo", "owner/open", "--private")


def test_weights_of_an_earlier_push_go_in_the_same_commit(model, here, owner, push):
    push("model", model, "--repo", "owner/reward")
    old = {"model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}
    adds = [CommitOperationAdd(name, b"old") for name in old | {"notes.md"}]
    owner.create_commit("owner/reward", adds, commit_message="Earlier")
    before = commits(here, "owner/reward")
    push("model", model, "--repo", "owner/reward")
    assert commits(here, "owner/reward") == before + 1
    files = set(repo_of(here, "owner/reward").at("main").files)
    assert not old & files
    assert "notes.md" in files
    push("model", model, "--repo", "owner/reward")  # nothing new, no commit
    assert commits(here, "owner/reward") == before + 1


def test_a_finished_model_is_opened_by_revision_and_with_a_token(folders, here, owner, push, tmp_path, monkeypatch):
    for kind in ("reward model", "attribution"):
        repo = f"org/{kind.split()[0]}"
        push("model", folders / kind, "--repo", repo, "--private", "--revision", "next")
        monkeypatch.delenv("HF_TOKEN")
        with pytest.raises(OSError, match="hf auth login"):
            is_attribution(repo, cache_dir=tmp_path / "nobody")
        where = {"revision": "next", "token": "hf_owner", "cache_dir": tmp_path / "cache"}
        assert is_attribution(repo, **where) is (kind == "attribution")
        assert isinstance(open_model(repo, **where), HindsightAttribution) is (kind == "attribution")
        monkeypatch.setenv("HF_TOKEN", "hf_owner")
    push("model", folders / "reward model", "--repo", "org/gated")
    owner.update_repo_settings("org/gated", gated="manual")
    with pytest.raises(OSError, match="org/gated"):
        is_attribution("org/gated", token="hf_stranger", cache_dir=tmp_path / "stranger")


# ---------------------------------------------------------------- cards


def test_a_card_that_was_edited_on_the_hub_is_kept(model, here, owner, push):
    (model / "README.md").write_text("# One\n")
    push("model", model, "--repo", "owner/reward")
    (model / "README.md").write_text("# Two\n")
    push("model", model, "--repo", "owner/reward")
    assert text(here, "owner/reward") == "# Two\n"  # the one there was ours
    edit = CommitOperationAdd("README.md", b"# By hand\n")
    owner.create_commit("owner/reward", [edit], commit_message="Update README.md")
    (model / "README.md").write_text("# Three\n")
    for _ in range(2):
        assert "--replace-card" in push("model", model, "--repo", "owner/reward")
        assert text(here, "owner/reward") == "# By hand\n"
    push("model", model, "--repo", "owner/reward", "--replace-card")
    assert text(here, "owner/reward") == "# Three\n"


def test_a_folder_without_a_card_leaves_the_one_there(model, here, owner, push):
    push("model", model, "--repo", "owner/reward")
    edit = CommitOperationAdd("README.md", b"# By hand\n")
    owner.create_commit("owner/reward", [edit], commit_message="Update README.md")
    push("model", model, "--repo", "owner/reward")
    assert text(here, "owner/reward") == "# By hand\n"


def test_a_card_whose_front_matter_is_no_yaml_is_refused(model, here, refusal):
    (model / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert f"{model / 'README.md'}: " in refusal("model", model, "--repo", "owner/reward")
    assert here.requests == []


def test_a_card_with_a_broken_front_matter_publishes_nothing(model, here, refusal):
    (model / "README.md").write_text("---\nlicense: apache\n---\n# Mine\n")
    assert "license" in refusal("model", model, "--repo", "owner/reward")
    assert not here.store.repos


# ---------------------------------------------------------------- what is refused before anything is sent


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


SPOILED = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    "half the weights": (lambda f: half(f / "model.safetensors"), "model.safetensors"),
    "a shard": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1-of-2.safetensors"}}'),
        "model-1-of-2.safetensors",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer_config.json").unlink(), "tokenizer_config.json"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "another model": (
        lambda f: (f / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}'),
        "'vit'",
    ),
    "half an attribution": (lambda f: (f / "hindsight.json").write_text("{}"), "hindsight.safetensors"),
    "pickled weights": (
        lambda f: torch.save({"a": torch.ones(1)}, f / "pytorch_model.bin"),
        "pytorch_model.bin: a p",
    ),
    "a hidden pickle": (lambda f: torch.save({"a": torch.ones(1)}, f / "notes.txt"), "notes.txt: a pickle"),
    "an old pickle": (lambda f: (f / "notes").write_bytes(b"\x80\x04K\x01."), "notes: a pickle"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_folder_that_is_incomplete_or_unsafe_is_refused(name, model, here, refusal):
    change, expected = SPOILED[name]
    change(model)
    said = refusal("model", model, "--repo", "owner/reward")
    assert str(model) in said
    assert expected in said
    assert here.requests == []


def test_an_adapter_to_a_folder_of_this_machine_is_refused(folders, tmp_path):
    adapter = Path(shutil.copytree(folders / "adapter", tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    for base in (str(folders / "policy"), "runs/mine/policy", "policy", None):
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        with pytest.raises(ValueError, match=r"the base model is .*--base OWNER/NAME"):
            open_folder(adapter)
    with pytest.raises(ValueError, match=r"--base: .* is a policy"):
        open_folder(folders / "policy", base="owner/policy")


def load_adapter() -> dict:
    """Load the adapter and say which weights it has in which dtype."""
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoTokenizer

    policy = AutoPeftModelForCausalLM.from_pretrained("owner/adapter")
    base = policy.peft_config["default"].base_model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "my dog ran away"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    return {"adapter": isinstance(policy, PeftModel), "base": base, "logits": policy(ids).logits[0, -1, :8].tolist()}


def test_the_shipped_adapter_loads_where_the_package_is_not(here, push, tmp_path):
    weights = Path(geli_hf.__file__).parent / "weights"
    push("model", weights / "policy", "--repo", "owner/policy")
    said = push("model", weights / "policy_adapter", "--repo", "owner/adapter", "--base", "owner/policy")
    assert ": adapter, " in said
    card = text(here, "owner/adapter")
    assert "base_model: owner/policy" in card
    assert "`policy`" not in card
    loaded = in_fresh_process(load_adapter, tmp_path, client(here, tmp_path / "cache"), geli_hf=False)
    assert (loaded["adapter"], loaded["base"]) == (True, "owner/policy")
    policy, tokenizer = shipped_policy()
    prompt = [{"role": "user", "content": "my dog ran away"}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = policy(ids).logits[0, -1, :8].tolist()
    assert loaded["logits"] == pytest.approx(expected, rel=0.05, abs=0.1)  # in bfloat16


@pytest.mark.parametrize("repo", ["reward", "a/b/c", "owner/-x", "owner/a b"])
def test_a_name_that_is_none_is_refused(repo, model, here, refusal):
    assert repo in refusal("model", model, f"--repo={repo}")
    assert here.requests == []


# ---------------------------------------------------------------- what the Hub refuses, and what breaks


@pytest.mark.parametrize(
    ("token", "repo", "status", "hint"),
    [
        (None, "owner/reward", "401", "hf auth login"),
        ("hf_wrong", "owner/reward", "401", "hf auth login"),
        ("hf_reader", "owner/reward", "403", "`write`"),
        ("hf_owner", "stranger/reward", "403", "--create-pr"),
    ],
)
def test_a_refused_token_gets_a_hint(token, repo, status, hint, model, here, refusal, monkeypatch):
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(model / "no_token"))
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    said = refusal("model", model, "--repo", repo)
    assert status in said
    assert hint in said
    assert token is None or token not in said
    assert not here.store.repos


@pytest.mark.parametrize("status", [409, 412, 429, 500])
def test_a_commit_that_fails_leaves_nothing(status, model, here, refusal, waits):
    here.fail("POST .*/commit/", status=status, times=100)
    assert str(status) in refusal("model", model, "--repo", "owner/reward")
    assert not here.store.repos


STEPS = (
    "POST /api/repos/create",
    "GET /api/models/owner/reward/revision/",
    "GET /api/models/owner/reward/tree/",
    "POST .*/preupload/",
    "POST .*/objects/batch",
    "PUT /lfs/",
    "POST .*/commit/",
)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", [{"status": 503}, {"drop": "request"}], ids=["refused", "broken off"])
def test_a_repository_goes_again_if_its_first_commit_fails(step, how, model, here, refusal, waits):
    here.fail(step, times=20, **how)
    refusal("model", model, "--repo", "owner/reward")
    assert not here.store.repos


def test_a_repository_that_was_there_stays_if_a_commit_fails(model, here, owner, refusal, waits):
    owner.create_repo("owner/reward")
    for step in STEPS[1:]:
        here.fail(step, times=20)
        refusal("model", model, "--repo", "owner/reward")
        here.faults.clear()
    assert commits(here, "owner/reward") == 1


@pytest.mark.parametrize("how", [{}, {"create_pr": True}, {"revision": "theirs"}], ids=str)
def test_a_new_repository_stays_if_something_got_into_it_from_elsewhere(how, model, here, refusal, monkeypatch):
    commit = HfApi.create_commit

    def another_before_ours(self, repo, *_, **__):
        if "revision" in how:
            self.create_branch(repo, branch=how["revision"])
        commit(self, repo, [CommitOperationAdd("notes.md", b"theirs")], commit_message="Theirs", **how)
        raise RuntimeError("it broke off")

    monkeypatch.setattr(HfApi, "create_commit", another_before_ours)
    said = refusal("model", model, "--repo", "owner/reward")
    assert "it broke off\nowner/reward was made for this push, has other commits, and stays." in said
    revision = "refs/pr/1" if "create_pr" in how else how.get("revision", "main")
    assert text(here, "owner/reward", "notes.md", revision=revision) == "theirs"


def test_a_new_repository_that_can_not_be_taken_back_is_named(model, here, refusal):
    here.fail("POST .*/commit/", status=500)
    here.fail("DELETE /api/repos/delete", status=403)
    said = refusal("model", model, "--repo", "owner/reward")
    assert "owner/reward was made for this push and stays: delete it" in said
    assert commits(here, "owner/reward") == 1


def test_a_name_that_was_taken_meanwhile_is_left_to_whoever_took_it(model, here, owner, refusal, monkeypatch):
    owner.create_repo("owner/reward")
    monkeypatch.setattr(pushing, "_info", lambda *_: None)  # as it was a moment ago
    assert "choose another name" in refusal("model", model, "--repo", "owner/reward")
    assert commits(here, "owner/reward") == 1


def test_what_was_stored_before_it_broke_off_is_not_sent_again(model, here, push, refusal, waits):
    here.fail("POST .*/commit/", status=500)
    refusal("model", model, "--repo", "owner/reward")
    sent = [row for row in here.requests if row.method == "PUT"]
    assert len(sent) == 1
    push("model", model, "--repo", "owner/reward")
    assert [row for row in here.requests if row.method == "PUT"] == sent
    assert commits(here, "owner/reward") == 2


def test_a_commit_whose_answer_is_lost_may_have_been_made(model, here, owner, refusal, waits):
    owner.create_repo("owner/reward")
    here.fail("POST .*/commit/", drop="answer")
    assert "may have been published" in refusal("model", model, "--repo", "owner/reward")
    assert commits(here, "owner/reward") == 2


def test_a_token_is_never_echoed(here):
    with pytest.raises(OSError, match="hf_") as lost, explained_errors():
        raise HTTPError("no answer to a request with the header Authorization: Bearer hf_owner")
    assert "hf_owner" not in "".join(traceback.format_exception(lost.value))


def test_offline_it_says_so(model, here, refusal, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal("model", model, "--repo", "owner/reward")


# ---------------------------------------------------------------- sessions


def row(number: int, **changed) -> dict:
    return {
        "session_id": f"c{number // 2}/ann{number % 3}",
        "conversation_id": f"c{number // 2}",
        "rater_id": f"ann{number % 3}",
        "messages": TALK,
        "score": None if number == 3 else float(number),
        "feedback": {"smile": [None if number == 1 else 0.5]},
        **changed,
    }


@pytest.fixture
def rows(tmp_path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    for split, numbers in {"train": range(6), "test": range(6, 9)}.items():
        write_jsonl([row(number) for number in numbers], folder / f"{split}.jsonl")
    return folder


def parquet(hub, name: str, split: str) -> list[dict]:
    path = f"data/{split}-00000-of-00001.parquet"
    return pq.read_table(io.BytesIO(hub.store.read(repo_of(hub, name, "dataset"), path, "main"))).to_pylist()


def test_a_repository_of_another_type_by_that_name_stays_as_it_is(rows, model, here, push):
    push("model", model, "--repo", "owner/it")
    before = dict(repo_of(here, "owner/it").at("main").files)
    push("dataset", rows, "--repo", "owner/it")  # on the Hub each type has names of its own
    assert repo_of(here, "owner/it").at("main").files == before
    assert commits(here, "owner/it", "dataset") == 2


def test_ids_of_raters_are_hashed_unless_asked_for(rows, here, push):
    push("dataset", rows, "--repo", "owner/rows")
    first = [*parquet(here, "owner/rows", "train"), *parquet(here, "owner/rows", "test")]
    assert "ann" not in str(first)
    raters = [each["rater_id"] for each in first]
    assert len(set(raters)) == 3  # the same person has the same name, in both splits
    assert raters[:3] == raters[3:6] == raters[6:]
    assert [each["session_id"] for each in first] == [
        f"{each['conversation_id']}/{each['rater_id']}" for each in first
    ]
    push("dataset", rows / "train.jsonl", "--repo", "owner/again")
    assert str(parquet(here, "owner/again", "train")) == str(first[:6])  # NaN is not equal to itself
    push("dataset", rows, "--repo", "owner/named", "--keep-rater-ids")
    assert [each["rater_id"] for each in parquet(here, "owner/named", "train")][:3] == ["ann0", "ann1", "ann2"]


def test_a_rater_s_id_is_replaced_as_a_word(here, push, tmp_path):
    ids = ["a/1", "a_1/11", "1", "a"]
    rows = [row(number, session_id=each, conversation_id="a", rater_id="1") for number, each in enumerate(ids)]
    write_jsonl(rows, tmp_path / "rows.jsonl")
    push("dataset", tmp_path / "rows.jsonl", "--repo", "owner/rows")
    sent = parquet(here, "owner/rows", "train")
    name = sent[0]["rater_id"]
    assert [each["session_id"] for each in sent] == [f"a/{name}", f"a_{name}/11", name, "a"]


def test_sessions_of_candor_go_to_no_public_repository(here, owner, push, refusal, tmp_path):
    conversation, person = "0020a0c5-1658-4747-99c1-2839e736b481", "5f0000000000000000000abc"
    looks = {
        "ids": row(0, session_id=f"{conversation}/{person}", conversation_id=conversation, rater_id=person),
        "person": row(0, rater_id=person),
        "session": row(0, session_id=f"{conversation}/x", conversation_id=conversation),
    }
    for name, each in looks.items():
        write_jsonl([row(1), each], tmp_path / f"{name}.jsonl")
        assert "--i-have-the-rights" in refusal("dataset", tmp_path / f"{name}.jsonl", "--repo", "owner/rows")
    assert not here.store.repos
    file = tmp_path / "ids.jsonl"
    owner.create_repo("owner/open", repo_type="dataset")
    assert "public" in refusal("dataset", file, "--repo", "owner/open", "--private")
    push("dataset", file, "--repo", "owner/closed", "--private")
    push("dataset", file, "--repo", "owner/closed")  # is private still
    push("dataset", file, "--repo", "owner/open", "--i-have-the-rights")
    assert person not in str(parquet(here, "owner/open", "train"))


def test_the_card_of_sessions_keeps_its_words_and_loses_an_old_schema(rows, here, owner, push):
    head = "license: mit\npretty_name: Walks\nconfigs:\n- config_name: old\ndataset_info:\n  dataset_size: 1\n"
    (rows / "README.md").write_text(f"---\n{head}---\n# Mine\n")
    push("dataset", rows, "--repo", "owner/rows")
    card = text(here, "owner/rows", repo_type="dataset")
    assert card.endswith("# Mine\n")
    metadata = cards.metadata(card)
    assert (metadata["license"], metadata["pretty_name"]) == ("mit", "Walks")
    assert not {"configs", "dataset_info"} & set(metadata)
    edited = CommitOperationAdd("README.md", card.replace("# Mine", "# By hand").encode())
    owner.create_commit("owner/rows", [edited], commit_message="Update README.md", repo_type="dataset")
    (rows / "test.jsonl").unlink()
    push("dataset", rows, "--repo", "owner/rows")
    card = text(here, "owner/rows", repo_type="dataset")
    assert card.endswith("# By hand\n")
    files = set(repo_of(here, "owner/rows", "dataset").at("main").files)
    assert {path for path in files if path.startswith("data/")} == {"data/train-00000-of-00001.parquet"}


def test_the_sample_may_be_published(here, push, tmp_path):
    said = push("dataset", "sample", "--options", '{"conversations": 3}', "--repo", "owner/sample", "--dry-run")
    assert "train-00000-of-00001.parquet" in said
    assert here.requests == []
    assert len(load_sessions("sample", conversations=3)) == 6
