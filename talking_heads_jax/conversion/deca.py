"""Names of DECA's coarse encoder, `E_flame` of deca_model.tar; the detail networks are left out."""

from talking_heads_jax.conversion.rules import (
    ModelTable,
    convolution,
    network_table,
    residual_trunk,
)
from talking_heads_jax.networks.deca import DecaEncoder
from talking_heads_jax.networks.weights import variable_shapes

NETWORK = "deca"
TABLE = ModelTable(
    networks={
        NETWORK: network_table(
            residual_trunk("encoder", "trunk"),
            convolution("layers.0", "dense_1", "linear"),
            convolution("layers.2", "dense_2", "linear"),
        )
    },
    required=(NETWORK,),
    # The encoder and decoder of wrinkles, and what a training left in the file.
    ignored=("[ED]_detail", "opt.*", "discriminator"),
    shapes=lambda: variable_shapes(DecaEncoder(), 32),
    wrapper="E_flame",
)
