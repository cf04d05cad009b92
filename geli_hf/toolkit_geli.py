"""What the code of every checkpoint has in common: the version that wrote it.

This file travels with every checkpoint, beside what imports it: it imports nothing of the package.
"""

import re

TOOLKIT_VERSION = "0.1.0"  # of the geli_hf that writes a configuration; a newer one's may mean what this can't know


class OfToolkit:
    """Of a configuration: it says which version wrote it, and one of a newer version is refused."""

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As every configuration's.

        Raises:
            ValueError: a newer geli_hf wrote it.
        """
        written = str(config_dict.get("geli_hf_version") or TOOLKIT_VERSION)
        if _release(written) > _release(TOOLKIT_VERSION):
            raise ValueError(
                f"this {cls.model_type} was written by geli-hf {written}, which is newer than {TOOLKIT_VERSION} here. "
                "Upgrade geli-hf; or, where it isn't imported, load with trust_remote_code=True the code that lies "
                "beside the weights"
            )
        return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.geli_hf_version = TOOLKIT_VERSION


def _release(version: str) -> tuple[int, ...]:
    """What may change the meaning of a configuration: major and minor version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
