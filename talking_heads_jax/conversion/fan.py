"""Names of the library face-alignment's 2-D network (2DFAN4-*.pth.tar, a flat state dict)."""

from collections.abc import Iterator

from talking_heads_jax.conversion.rules import (
    ModelTable,
    Recreated,
    Rule,
    batch_norm,
    convolution,
    network_table,
)
from talking_heads_jax.networks.fan import FaceAlignmentNetwork
from talking_heads_jax.networks.weights import variable_shapes

NETWORK = "fan"


def _block(source: str, target: str) -> Iterator[Rule | Recreated]:
    yield from convolution(f"{source}.conv{{k}}", f"{target}/conv_{{k}}", bias=False)
    yield from batch_norm(f"{source}.bn{{k}}", f"{target}/norm_{{k}}")
    yield from batch_norm(f"{source}.downsample.0", f"{target}/shortcut_norm")
    yield from convolution(f"{source}.downsample.2", f"{target}/shortcut_conv", bias=False)


TABLE = ModelTable(
    networks={
        NETWORK: network_table(
            convolution("conv1", "conv_1"),
            batch_norm("bn1", "norm_1"),
            _block("conv{n}", "block_{n}"),
            _block("m{i}.b1_{n}", "hourglass_{i}/across_{n}"),
            _block("m{i}.b2_{n}", "hourglass_{i}/down_{n}"),
            _block("m{i}.b3_{n}", "hourglass_{i}/up_{n}"),
            _block("m{i}.b2_plus_1", "hourglass_{i}/bottom"),
            _block("top_m_{i}", "top_{i}"),
            convolution("conv_last{i}", "head_conv_{i}"),
            batch_norm("bn_end{i}", "head_norm_{i}"),
            convolution("l{i}", "heatmap_{i}"),
            convolution("bl{i}", "features_back_{i}"),
            convolution("al{i}", "heatmap_back_{i}"),
        )
    },
    required=(NETWORK,),
    shapes=lambda: variable_shapes(FaceAlignmentNetwork(), 64),
)
