"""Configuration of the classifier of facial affect.

This file, `modeling_affect.py` and `image_processing_affect.py` travel with every checkpoint: of the package, they
import only each other.
"""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

TOOLKIT_VERSION = "0.1.0"  # of the geli_hf that writes this configuration
# CANDOR's columns, in CANDOR's order.
LABELS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


@strict
class FacialAffectConfig(PreTrainedConfig):
    r"""
    Configuration of a [`FacialAffectModel`].

    Args:
        image_size (`int`, *optional*, defaults to 48):
            Side of the input, in pixels.
        hidden_sizes (`list[int]`, *optional*, defaults to `[24, 32, 64, 128]`):
            Channels of the net's first layer and of its residual blocks; each halves the picture. Multiples of
            eight, since torch 2.15 crashes in training with others in the memory layout that is fast on a CPU.
        dropout (`float`, *optional*, defaults to 0.2):
            Dropout on the input of the net's last layer.
        crop_size (`int`, *optional*):
            Side of the middle of the input, in pixels, that the net reads. `None`: all of it.
        xception_sizes (`list[int]`, *optional*):
            Channels of the first layers and of the blocks of a mini-XCEPTION (Arriaga et al., arXiv 1710.07557), which
            reads all of the input and whose scores are added. `None`: there is none.
        mirror (`bool`, *optional*, defaults to `False`):
            Whether scores are the mean of those of a face and of its mirror image, except in training.
        temperature (`float`, *optional*, defaults to 1.0):
            Divides the scores of the classes.
        log_prior_shift (`list[float]`, *optional*):
            Added to the divided scores, one number per label: the log of its frequency in use over that in training.
            `None`: nothing is added.
    """

    model_type = "facial_affect"

    image_size: int = 48
    hidden_sizes: list[int] | tuple[int, ...] = (24, 32, 64, 128)
    dropout: float = 0.2
    crop_size: int | None = None
    xception_sizes: list[int] | tuple[int, ...] | None = None
    mirror: bool = False
    temperature: float = 1.0
    log_prior_shift: list[float] | tuple[float, ...] | None = None

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Read a configuration, as every `PreTrainedConfig` does.

        Raises:
            ValueError: it was written by a newer geli_hf, whose settings this version does not know.
        """
        written = str(config_dict.get("geli_hf_version") or TOOLKIT_VERSION)
        newest = [tuple(int(part) for part in version.split(".")[:2]) for version in (written, TOOLKIT_VERSION)]
        if newest[0] > newest[1]:
            raise ValueError(
                f"this {cls.model_type} was written by geli-hf {written}, which is newer than {TOOLKIT_VERSION} here. "
                "Upgrade geli-hf; or, where it isn't imported, load with trust_remote_code=True the code that lies "
                "beside the weights"
            )
        return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs):
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = dict(enumerate(LABELS))
        if self.id2label is not None:
            self.label2id = {label: int(index) for index, label in self.id2label.items()}
        self.problem_type = "single_label_classification"
        super().__post_init__(**kwargs)
        self.geli_hf_version = TOOLKIT_VERSION
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, found {self.temperature}")
        if self.crop_size is not None and not 0 < self.crop_size <= self.image_size:
            raise ValueError(f"crop_size: expected 1 to image_size ({self.image_size}), found {self.crop_size}")


__all__ = ["FacialAffectConfig"]
