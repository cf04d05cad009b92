"""Spaces and cards: a folder that becomes a Space and comes back, a card that is taken and one that is not."""

import pytest
from clients import client
from fresh import error_of, in_fresh_process
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

SPACE = "org/chat"
CARD = "---\ntitle: Chat\nemoji: 💬\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n"
FILES = {"README.md": CARD, "app.py": "import gradio\n", "requirements.txt": "torch\n", "pages/about.md": "# About\n"}


@pytest.fixture
def folder(tmp_path):
    for path, text in FILES.items():
        (tmp_path / "space" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / path).write_text(text, encoding="utf-8")
    return tmp_path / "space"


def commits(hub) -> int:
    repo = hub.store.repos["space", SPACE]
    return len(repo.history(repo.at("main")))


def test_a_folder_becomes_a_space_in_one_commit_and_comes_back(hub, owner, folder, tmp_path):
    owner.create_repo(SPACE, repo_type="space", space_sdk="gradio")
    before = commits(hub)
    owner.upload_folder(repo_id=SPACE, repo_type="space", folder_path=folder)
    assert commits(hub) == before + 1
    assert owner.get_space_runtime(SPACE).stage == "RUNNING"
    found = snapshot_download(SPACE, repo_type="space", endpoint=hub.url, cache_dir=tmp_path / "cache", token=False)
    for path, text in FILES.items():
        assert (tmp_path / found / path).read_text(encoding="utf-8") == text

    # Again: what is gone here goes there, in one commit; and nothing new makes none.
    (folder / "pages" / "about.md").unlink()
    (folder / "app.py").write_text("import gradio as gr\n")
    for _ in range(2):
        owner.upload_folder(repo_id=SPACE, repo_type="space", folder_path=folder, delete_patterns="pages/*")
        assert commits(hub) == before + 2
    assert set(owner.list_repo_files(SPACE, repo_type="space")) == {".gitattributes", *FILES} - {"pages/about.md"}


def test_a_space_with_a_broken_card_is_not_published_by_half(hub, owner, folder):
    (folder / "README.md").write_text(CARD.replace("gradio", "gradoi", 1))
    owner.create_repo(SPACE, repo_type="space", space_sdk="gradio")
    with pytest.raises(ValueError, match='"sdk" must be one of'):
        owner.upload_folder(repo_id=SPACE, repo_type="space", folder_path=folder)
    assert owner.list_repo_files(SPACE, repo_type="space") == [".gitattributes"]


def test_a_space_in_a_namespace_of_others_is_refused(hub, owner):
    with pytest.raises(HfHubHTTPError, match="don't have the rights") as refused:
        owner.create_repo("stranger/chat", repo_type="space", space_sdk="gradio")
    assert refused.value.response.status_code == 403


def push_cards():
    from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData

    HfApi().create_repo("owner/model")
    figure = {"task_type": "text-classification", "dataset_type": "sample", "dataset_name": "the sample corpus"}
    result = EvalResult(**figure, metric_type="pearsonr", metric_value=0.61)
    card = ModelCard.from_template(
        ModelCardData(license="apache-2.0", language="en", model_name="reward", eval_results=[result]),
        template_str="---\n{{ card_data }}\n---\n# A reward model\n",
    )
    card.push_to_hub("owner/model")
    again = ModelCard.load("owner/model")
    broken = ModelCard("---\nlicense: apache\n---\n# A reward model\n")
    return {
        "same": str(again) == str(card),
        "value": again.data.eval_results[0].metric_value,
        "info": HfApi().model_info("owner/model").card_data.license,
        "broken": error_of(broken.push_to_hub, "owner/model"),
        "still": str(ModelCard.load("owner/model")) == str(card),
    }


def test_a_card_is_pushed_with_its_figures_and_a_broken_one_is_refused(hub, tmp_path):
    found = in_fresh_process(push_cards, tmp_path, client(hub, tmp_path, "hf_owner"))
    refused = found.pop("broken")
    assert found == {"same": True, "value": 0.61, "info": "apache-2.0", "still": True}
    assert refused.startswith("ValueError")
    assert '"license" must be one of' in refused.replace('\\"', '"')
