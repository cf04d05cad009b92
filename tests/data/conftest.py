"""Fixtures of the readers."""

import pytest
from candor_folder import CandorFolder


@pytest.fixture
def candor(tmp_path) -> CandorFolder:
    (tmp_path / "candor").mkdir()
    return CandorFolder(tmp_path / "candor")
