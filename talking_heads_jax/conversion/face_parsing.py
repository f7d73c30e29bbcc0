"""Names of face-parsing.PyTorch's BiSeNet (79999_iter.pth, a flat state dict)."""

from collections.abc import Iterator

from talking_heads_jax.conversion.rules import (
    ModelTable,
    Recreated,
    Rule,
    batch_norm,
    convolution,
    network_table,
    residual_trunk,
)
from talking_heads_jax.networks.face_parsing import FaceParsingNetwork
from talking_heads_jax.networks.weights import variable_shapes

NETWORK = "face_parsing"


def _block(source: str, target: str) -> Iterator[Rule | Recreated]:
    yield from convolution(f"{source}.conv", f"{target}/conv", bias=False)
    yield from batch_norm(f"{source}.bn", f"{target}/norm")


def _attention(scale: int) -> Iterator[Rule | Recreated]:
    source, target = f"cp.arm{scale}", f"attention_{scale}"
    yield from _block(f"{source}.conv", f"{target}/block")
    yield from convolution(f"{source}.conv_atten", f"{target}/attention", bias=False)
    yield from batch_norm(f"{source}.bn_atten", f"{target}/attention_norm")


def _head(source: str, target: str) -> Iterator[Rule | Recreated]:
    yield from _block(f"{source}.conv", f"{target}/block")
    yield from convolution(f"{source}.conv_out", f"{target}/classes", bias=False)


TABLE = ModelTable(
    networks={
        NETWORK: network_table(
            residual_trunk("cp.resnet", "trunk"),
            _attention(16),
            _attention(32),
            _block("cp.conv_avg", "overview"),
            _block("cp.conv_head16", "path_16"),
            _block("cp.conv_head32", "path_32"),
            _block("ffm.convblk", "fusion/block"),
            convolution("ffm.conv1", "fusion/squeeze", bias=False),
            convolution("ffm.conv2", "fusion/expand", bias=False),
            _head("conv_out", "head"),
            _head("conv_out16", "side_head_16"),
            _head("conv_out32", "side_head_32"),
        )
    },
    required=(NETWORK,),
    shapes=lambda: variable_shapes(FaceParsingNetwork(), 64),
)
