"""Names of torchvision's VGG19 file (vgg19-dcbb9e9d.pth): the layers the perceptual losses use."""

import numpy as np

from talking_heads_jax.conversion.rules import (
    ModelTable,
    Recreated,
    convolution,
    network_table,
)
from talking_heads_jax.networks.vgg19 import CONVOLUTIONS, TAPS, Vgg19Features
from talking_heads_jax.networks.weights import variable_shapes

NETWORK = "vgg19"
_LAST = max(TAPS.values())
_USED = [index for index in CONVOLUTIONS if index <= _LAST]
_DEEPER = "|".join(str(index) for index in CONVOLUTIONS if index > _LAST)


def _statistic(*values: float) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(1, 3, 1, 1)


FEATURES = network_table(
    *(convolution(f"features.{index}", f"features_{index}") for index in _USED),
    kept=(rf"features\.(?:{_DEEPER})\.(?:weight|bias)",),
    # The classifier is 494 MB that nothing of ours reads.
    ignored=(r"classifier\..*",),
)
# Some repositories save the ImageNet statistics with the network; ours are constants. They are
# checked, not recreated: torchvision's own file has none.
STATISTICS = (
    Recreated("mean", "", lambda arguments: _statistic(0.485, 0.456, 0.406), 1e-6),
    Recreated("std", "", lambda arguments: _statistic(0.229, 0.224, 0.225), 1e-6),
)
TABLE = ModelTable(
    networks={
        NETWORK: network_table(
            FEATURES.rules, STATISTICS, kept=FEATURES.kept, ignored=FEATURES.ignored
        )
    },
    required=(NETWORK,),
    shapes=lambda: variable_shapes(Vgg19Features(), 32),
)
