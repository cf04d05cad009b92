"""The classifier of facial affect: probabilities of emotions from a picture of a face.

This file, `configuration_affect.py` and `image_processing_affect.py` travel with every checkpoint: of the package,
they import only each other.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import ImageClassifierOutput

from .configuration_affect import FacialAffectConfig
from .image_processing_affect import FacialAffectImageProcessor, standardise

XCEPTION_SIDE = 64  # pixels to which a mini-XCEPTION scales its input


class _Block(nn.Module):
    """Residual block (He et al., arXiv 1512.03385) of two 3 x 3 convolutions. It halves the picture."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outside)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(self.norm(self.shortcut(x)) + inner)


class SmallNet(nn.Module):
    """Residual net from (n, 1, side, side) to (n, labels). Its first layer halves the picture, for speed on a CPU."""

    def __init__(self, config: FacialAffectConfig):
        super().__init__()
        first, *others = config.hidden_sizes
        self.conv = nn.Conv2d(1, first, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        self.blocks = nn.Sequential(*map(_Block, config.hidden_sizes[:-1], others))
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_sizes[-1], config.num_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute scores (n, labels) of faces (n, 1, side, side)."""
        x = self.blocks(functional.relu(self.norm(self.conv(x))))
        return self.classifier(self.dropout(x.mean((2, 3))))


def _separable(inside: int, outside: int) -> nn.Sequential:
    """Make a depthwise 3 x 3 and a pointwise convolution, normalised."""
    depthwise = nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside, eps=1e-3))


class _XceptionBlock(nn.Module):
    """Residual block of two separable convolutions. It halves the picture, with the padding of Keras."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.conv1 = _separable(inside, outside)
        self.conv2 = _separable(outside, outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outside, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.conv2(functional.relu(self.conv1(x)))
        pooled = functional.max_pool2d(inner, 3, 2, padding=x.shape[-1] % 2, ceil_mode=True)
        return pooled + self.norm(self.shortcut(x))


class MiniXception(nn.Module):
    """mini-XCEPTION (Arriaga et al., arXiv 1710.07557) from (n, 1, side, side) to (n, labels)."""

    def __init__(self, config: FacialAffectConfig):
        super().__init__()
        first, *others = config.xception_sizes
        self.conv1 = nn.Conv2d(1, first, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(first, eps=1e-3)
        self.conv2 = nn.Conv2d(first, first, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(first, eps=1e-3)
        self.blocks = nn.Sequential(*map(_XceptionBlock, config.xception_sizes[:-1], others))
        self.classifier = nn.Conv2d(config.xception_sizes[-1], config.num_labels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute scores (n, labels) of faces (n, 1, side, side)."""
        x = functional.interpolate(x, (XCEPTION_SIDE, XCEPTION_SIDE), mode="bilinear")
        x = functional.relu(self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x))))))
        return self.classifier(self.blocks(x)).mean((2, 3))


class FacialAffectModel(PreTrainedModel):
    """Emotions of a face, as a `transformers` image classifier.

    The softmax of `logits` is calibrated by the `temperature` and the `log_prior_shift` of the configuration:

        logits = scores / temperature + log_prior_shift

    The scores are those of a residual net (`model`), and with `xception_sizes` the sum of those and of a
    mini-XCEPTION's (`xception`). The loss is the cross-entropy of the scores, without calibration.
    """

    config_class = FacialAffectConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    base_model_prefix = "model"
    _auto_class = "AutoModelForImageClassification"

    def __init__(self, config: FacialAffectConfig):
        super().__init__(config)
        self.model = SmallNet(config)
        self.xception = None if config.xception_sizes is None else MiniXception(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv2d):
            initialization.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model with this code beside the weights, so that it loads without `geli_hf`. The image processor is
        saved to the same folder by its own `save_pretrained`."""
        self.config.auto_map = {
            "AutoConfig": "configuration_affect.FacialAffectConfig",
            # By its class, since transformers copies the files that this one imports.
            "AutoImageProcessor": f"image_processing_affect.{FacialAffectImageProcessor.__name__}",
            "AutoModelForImageClassification": "modeling_affect.FacialAffectModel",
        }
        return super().save_pretrained(save_directory, **kwargs)

    def forward(
        self, pixel_values: torch.FloatTensor, labels: torch.LongTensor | None = None, **kwargs
    ) -> ImageClassifierOutput:
        """Classify faces.

        Args:
            pixel_values: (batch, 1, side, side), grey faces, as the image processor makes them.
            labels: (batch,), index of the true label.

        Returns:
            `logits` (batch, labels), and the `loss` if there are labels.
        """
        if self.config.mirror and not self.training:  # both in one pass, which is faster than two
            scores = self._scores(torch.cat([pixel_values, pixel_values.flip(-1)])).unflatten(0, (2, -1)).mean(0)
        else:
            scores = self._scores(pixel_values)
        loss = None if labels is None else functional.cross_entropy(scores, labels)
        logits = scores / self.config.temperature
        if self.config.log_prior_shift is not None:
            logits = logits + logits.new_tensor(self.config.log_prior_shift)
        return ImageClassifierOutput(loss=loss, logits=logits)

    def _scores(self, faces: torch.Tensor) -> torch.Tensor:
        middle, side = faces, self.config.crop_size
        if side is not None:
            edge = (faces.shape[-1] - side) // 2
            middle = standardise(faces[:, 0, edge : edge + side, edge : edge + side])
        scores = self.model(middle)
        return scores if self.xception is None else scores + self.xception(faces)


__all__ = ["FacialAffectModel"]
