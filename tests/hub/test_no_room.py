"""A disk that is full while something is loaded: the message says where, how much and what to do; then it loads whole.

Two ways to be full: a limit to the size of a file, which anybody may set, and a small disk, if it may be mounted.
"""

import resource
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch
from faces import affect_checkpoint
from tiny import reward_model, session, talk

from geli_hf import FacialAffectModel, GeliRewardModel, HindsightAttribution, ImageAffect, toolkit_geli
from geli_hf.alignment import load_policy, small_policy
from geli_hf.cache import whole
from geli_hf.finished import open_model

LIMIT = 20_000  # bytes: below the weights of every model here


@contextmanager
def small_files():
    """The system takes no more than so much of a file, whoever writes it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def model(here) -> GeliRewardModel:
    model = reward_model("bert")
    model.push_to_hub("owner/reward")
    return model


def test_a_model_that_came_by_half_is_not_taken_for_whole(model, here):
    with small_files(), pytest.raises(OSError, match=r"There is no room left for it in .*hub_cache") as full:
        GeliRewardModel.from_pretrained("owner/reward")
    said = str(full.value)
    assert "File too large" in said  # the system's own word
    takes = sum(file["size"] for file in here.store.repos["model", "owner/reward"].at("main").files.values())
    assert f"all of owner/reward takes {takes / 1e6:,.1f} MB" in said
    for words in (" MB are free there", "`hf cache rm`", "HF_HOME"):
        assert words in said
    again = GeliRewardModel.from_pretrained("owner/reward")
    torch.testing.assert_close(again.score_messages([talk(6)]), model.score_messages([talk(6)]))


def test_every_door_says_it_once(model, here, tmp_path, monkeypatch):
    room = count(1_000_000, 1_000_000)
    monkeypatch.setattr(toolkit_geli, "_free", lambda folder: next(room))  # others write and delete meanwhile
    HindsightAttribution(model, np.zeros(32), np.ones(32), signals={}).push_to_hub("owner/teacher")
    face = FacialAffectModel.from_pretrained(affect_checkpoint(tmp_path / "face", hidden_sizes=[32, 32, 32]))
    face.push_to_hub("owner/face")
    policy, tokenizer = small_policy([session(8)], hidden_size=32, layers=1, vocab_size=300)
    for part in (policy, tokenizer):
        part.push_to_hub("owner/policy")
    doors = {
        "owner/reward": (GeliRewardModel.from_pretrained, GeliRewardModel.from_backbone),
        "owner/teacher": (HindsightAttribution.from_pretrained, open_model),
        "owner/face": (FacialAffectModel.from_pretrained, ImageAffect),
        "owner/policy": (load_policy,),
    }
    with small_files():
        for name, loads in doors.items():
            for load in loads:
                with pytest.raises(OSError, match="There is no room left for it") as full:
                    load(name)
                assert f"all of {name} takes" in str(full.value)
                assert str(full.value).count("There is no room") == 1
    load_policy("owner/policy")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB, and what makes it large."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> bool:
        return not subprocess.run(["mount", *options, folder], capture_output=True).returncode

    if not (shutil.which("mount") and mount("-t", "tmpfs", "-o", "size=64k", "tmpfs")):
        pytest.skip("only root may mount a disk")
    yield folder, partial(mount, "-o", "remount,size=16m")
    subprocess.run(["umount", "--lazy", folder], check=True)  # weights are mapped from it


def test_a_disk_without_room(model, small_disk):
    folder, enlarge = small_disk
    with pytest.warns(UserWarning, match="Not enough free disk space"), pytest.raises(OSError) as full:
        GeliRewardModel.from_pretrained("owner/reward", cache_dir=folder)
    assert "No space left on device" in str(full.value)
    assert f"There is no room left for it in {folder}: 0." in str(full.value)
    enlarge()
    again = GeliRewardModel.from_pretrained("owner/reward", cache_dir=folder)
    torch.testing.assert_close(again.score_messages([talk(6)]), model.score_messages([talk(6)]))


def test_what_is_kept_of_our_own_is_whole_or_not_there(tmp_path):
    target = tmp_path / "cache" / "rows"
    with (
        small_files(),
        pytest.raises(OSError, match=r"there is no room left for it .*GELI_HF_CACHE"),
        whole(target) as part,
    ):
        part.write_bytes(b"x" * 2 * LIMIT)
    assert not list(target.parent.iterdir())
