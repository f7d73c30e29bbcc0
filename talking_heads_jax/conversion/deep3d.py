"""Names of Deep3DFaceRecon's regressor, `net_recon` of epoch_20.pth."""

from talking_heads_jax.conversion.rules import (
    ModelTable,
    convolution,
    network_table,
    residual_trunk,
)
from talking_heads_jax.networks.deep3d import DEEP3D_HEADS, Deep3DRegressor
from talking_heads_jax.networks.weights import variable_shapes

NETWORK = "deep3d"
TABLE = ModelTable(
    networks={
        NETWORK: network_table(
            residual_trunk("backbone", "trunk"),
            *(
                convolution(f"final_layers.{index}", name)
                for index, name in enumerate(DEEP3D_HEADS)
            ),
        )
    },
    required=(NETWORK,),
    ignored=(r"opt_\d+", r"sched_\d+"),
    shapes=lambda: variable_shapes(Deep3DRegressor(), 32),
    wrapper="net_recon",
)
