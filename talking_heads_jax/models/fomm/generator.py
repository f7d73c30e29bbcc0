"""FOMM's generator: encode the source, warp, occlude, decode with residual blocks."""

from talking_heads_jax.layers.appearance import ResidualDecoder
from talking_heads_jax.layers.warping_generator import WarpingGenerator
from talking_heads_jax.typing import Array, Float


class OcclusionAwareGenerator(WarpingGenerator):
    """A `WarpingGenerator` with FOMM's residual decoder.

    Source: FOMM (NeurIPS 2019) section 3.3; FOMM repository.
    """

    def setup(self) -> None:
        """Creates `encoder`, `dense_motion`, `decoder`."""
        super().setup()
        self.decoder = ResidualDecoder(
            self.encoder.out_features,
            self.image_channels,
            self.block_expansion,
            self.max_features,
            self.num_bottleneck_blocks,
            self.num_down_blocks,
            self.skip_features,
            implementation=self.implementation,
            dtype=self.dtype,
        )

    def decode_features(
        self,
        warped: Float[Array, "b h w c"],
        skip: Float[Array, "b h2 w2 e"] | None,
        *,
        train: bool,
        with_intermediates: bool,
    ) -> dict[str, Array]:
        """Returns `prediction` (b h w c) in [0, 1]."""
        del with_intermediates
        return {"prediction": self.decoder(warped, skip, train=train)}
