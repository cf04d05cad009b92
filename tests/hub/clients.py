"""Environment of a process that talks to the loopback Hub."""

from pathlib import Path

from loopback_hub import Hub


def client(hub: Hub, folder: Path, token: str | None = None, **environment) -> dict[str, str | None]:
    """Environment of a process that asks this Hub, with a cache of its own in `folder`: empty if that is."""
    folder.mkdir(exist_ok=True)
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf_home"),
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": None,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "GELI_HF_CACHE": str(folder / "geli_hf"),
    } | environment
