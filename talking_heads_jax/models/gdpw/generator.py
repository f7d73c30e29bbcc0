"""GDPW's generator: neural codes, guidance, encoder, decoder.

Letters: b batch, h w image, v vertices, d channels of the codes.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.models.gdpw.decoder import ProgressiveDecoder
from talking_heads_jax.models.gdpw.encoder import PyramidEncoder, SourcePyramid
from talking_heads_jax.models.gdpw.guidance import (
    CULLINGS,
    GUIDANCES,
    OFFICIAL_SHIFT_PX,
    GuidanceMaps,
    MeshPair,
    check_vertices,
    draw_attributes,
    guidance_maps,
    guidance_pyramid,
    normalize_vertices,
)
from talking_heads_jax.models.gdpw.warping_module import warp_by_flow
from talking_heads_jax.morphable.face_mesh import FaceMesh
from talking_heads_jax.ops.resize import average_pool
from talking_heads_jax.typing import Array, Float

_COORDINATES = 3  # channels of NMFC


class ProgressiveGenerator(nn.Module):
    """Source image and guidance → the source in the driving mesh's pose.

    Attributes:
      mesh: the topology; read only where meshes are drawn.
      resolution: side of the images.
      guidance: 'geometry' (displacement field), 'codes' (posed neural codes, on both meshes),
        'both', or 'nmfc' (coordinates of the mean face in place of codes).
      num_codes: channels of a neural code.
      num_vertices: of the mesh, where codes are learned.
      code_start: they start evenly spread between 0 and this; 1 in the released code.
      num_levels: of the pyramid, the image's own size included.
      block_expansion: channels at full size; doubled at every level.
      max_features: bound of the channels.
      alpha_blend: blend the synthesised image with the warped source by the predicted alpha.
      bottleneck_warp: see `ProgressiveDecoder`; None: where a displacement field is drawn, as the
        paper's text has it.
      single_scale: see `ProgressiveDecoder`.
      flow_stride: see `ProgressiveDecoder`.
      align_corners: see `warping_module.warp_by_flow`.
      flow_correction: predicted flows are added to the displacement field where one is drawn; not
        of the paper, and not together with `single_scale`.
      finest_block: a guided block at the image's own size; not of the paper, whose finest guided
        block sees half of it.
      residual: the synthesised image is what is added to the warped source, grey for nothing; not
        of the paper, and not together with `alpha_blend`.
      spectral_norm: of all convolutions but flow heads and output layer.
      spectral_heads: of those, as the paper's text has it.
      smooth_silhouettes: antialias the drawn maps.
      vertex_shift_px: added to the vertices before drawing (see `guidance.OFFICIAL_SHIFT_PX`).
      cull: see `guidance.draw_attributes`.
      implementation: 'fast', or 'plain', the reference: the same numbers up to rounding.
      dtype: compute dtype; drawing, flows, statistics and images are float32.

    Source: Zhong et al., Geometry Driven Progressive Warping for One-Shot Face Animation (BMVC
      2022), and its repository.
    """

    mesh: FaceMesh
    resolution: int = 256
    guidance: str = "codes"
    num_codes: int = 16
    num_vertices: int = 0
    code_start: float = 1.0
    num_levels: int = 6
    block_expansion: int = 32
    max_features: int = 1024
    alpha_blend: bool = False
    bottleneck_warp: bool | None = True
    single_scale: bool = False
    flow_stride: int = 4
    align_corners: bool = False
    flow_correction: bool = False
    finest_block: bool = False
    residual: bool = False
    spectral_norm: bool = True
    spectral_heads: bool = False
    smooth_silhouettes: bool = True
    vertex_shift_px: float = OFFICIAL_SHIFT_PX
    cull: str = "back_after"
    implementation: str = "fast"
    dtype: Any = jnp.float32

    @property
    def with_flow(self) -> bool:
        """Whether the displacement field is part of the guidance."""
        return self.guidance in ("geometry", "both")

    @property
    def warps_bottleneck(self) -> bool:
        """`bottleneck_warp`, with None decided."""
        return self.with_flow if self.bottleneck_warp is None else self.bottleneck_warp

    @property
    def code_features(self) -> int:
        """Channels of codes or coordinates; 0 without."""
        widths = {"geometry": 0, "nmfc": _COORDINATES}
        return widths.get(self.guidance, self.num_codes)

    @property
    def coarsest(self) -> int:
        """Stride of the bottleneck."""
        return 2 ** (self.num_levels - 1)

    def setup(self) -> None:
        """Creates `codes` (if learned), `encoder` and `decoder`."""
        check_choice("guidance", self.guidance, GUIDANCES)
        check_choice("cull", self.cull, CULLINGS)
        if self.residual and self.alpha_blend:
            raise ArgumentError(
                requirement("residual and alpha_blend", "not be both", True, "Choose one.")
            )
        if self.flow_correction and (self.single_scale or not self.with_flow):
            raise ArgumentError(
                requirement(
                    "flow_correction",
                    "have a displacement field to correct, at every scale",
                    f"guidance '{self.guidance}', single_scale={self.single_scale}",
                    "Use guidance 'geometry' or 'both' without single_scale.",
                )
            )
        _check_levels(self.resolution, self.num_levels, self.flow_stride, self.single_scale)
        if self.guidance in ("codes", "both"):
            shape = (self.num_vertices, self.num_codes)
            self.codes = self.param("codes", nn.initializers.uniform(self.code_start), shape)
        features = tuple(
            min(self.max_features, self.block_expansion * 2**level)
            for level in range(self.num_levels)
        )
        self.encoder = PyramidEncoder(
            3 + self.code_features, features, spectral_norm=self.spectral_norm, dtype=self.dtype
        )
        self.decoder = ProgressiveDecoder(
            features,
            self.code_features + 2 * self.with_flow,
            bottleneck_warp=self.warps_bottleneck,
            single_scale=self.single_scale,
            flow_stride=self.flow_stride,
            align_corners=self.align_corners,
            flow_correction=self.flow_correction,
            finest_block=self.finest_block,
            spectral_norm=self.spectral_norm,
            spectral_heads=self.spectral_heads,
            implementation=self.implementation,
            dtype=self.dtype,
        )

    def __call__(
        self,
        source_image: Float[Array, "b h w 3"],
        guidance: GuidanceMaps | MeshPair,
        *,
        train: bool,
    ) -> dict[str, Any]:
        """Animates.

        Args:
          source_image: RGB in [0, 1].
          guidance: the maps, or the meshes to draw them from.
          train: batch statistics and a power iteration, or the stored ones.

        Returns:
          As `decode`, with intermediates.
        """
        if isinstance(guidance, MeshPair):
            guidance = self.draw(guidance.source, guidance.driving)
        features = self.encode(source_image, guidance.source_codes, train=train)
        return self.decode(features, source_image, guidance, train=train, with_intermediates=True)

    def draw(
        self, source_vertices: Float[Array, "b v 3"], driving_vertices: Float[Array, "b v 3"]
    ) -> GuidanceMaps:
        """Draws all maps of this variant.

        Args:
          source_vertices: in crop pixels.
          driving_vertices: likewise.

        Raises:
          ArgumentError: if they are not vertices of the mesh, or the codes are of another mesh.
        """
        driven = self.draw_driving(source_vertices, driving_vertices)
        return driven._replace(source_codes=self.draw_source(source_vertices))

    def draw_source(self, source_vertices: Float[Array, "b v 3"]) -> Float[Array, "b h w d"] | None:
        """The encoder's part of the maps; None for the displacement field.

        Args:
          source_vertices: in crop pixels.
        """
        source = self._checked(source_vertices, "source")
        attributes = self._attributes()
        if attributes is None:
            return None
        positions = normalize_vertices(source, self.resolution, shift_px=self.vertex_shift_px)
        topology = self.mesh.topology if self.smooth_silhouettes else None
        return draw_attributes(
            attributes,
            positions,
            self.mesh.faces,
            topology,
            size=self.resolution,
            cull=self.cull,
        )

    def draw_driving(
        self, source_vertices: Float[Array, "b v 3"], driving_vertices: Float[Array, "b v 3"]
    ) -> GuidanceMaps:
        """The decoder's part of the maps.

        Args:
          source_vertices: in crop pixels.
          driving_vertices: likewise.
        """
        return guidance_maps(
            self._checked(source_vertices, "source"),
            self._checked(driving_vertices, "driving"),
            self.mesh.faces,
            self._attributes(),
            size=self.resolution,
            with_flow=self.with_flow,
            with_source=False,
            topology=self.mesh.topology if self.smooth_silhouettes else None,
            shift_px=self.vertex_shift_px,
            cull=self.cull,
        )

    def _checked(self, vertices: Array | None, who: str) -> Array:
        return check_vertices(vertices, self.mesh.num_vertices, who, mesh=self.mesh.name)

    def _attributes(self) -> Array | None:
        if self.guidance == "nmfc":
            return jnp.asarray(self.mesh.coordinates)
        if not self.code_features:
            return None
        if self.num_vertices != self.mesh.num_vertices:
            raise ArgumentError(
                requirement(
                    "num_vertices",
                    f"be {self.mesh.num_vertices}, as mesh '{self.mesh.name}'",
                    self.num_vertices,
                    "Codes serve the mesh they were learned on: name it as `morphable`.",
                )
            )
        return self.codes

    def encode(
        self,
        source_image: Float[Array, "b h w 3"],
        source_codes: Float[Array, "b h w d"] | None,
        *,
        train: bool,
    ) -> SourcePyramid:
        """Features of the portrait, once for all frames.

        Args:
          source_image: RGB in [0, 1].
          source_codes: of `draw_source`.
          train: see `__call__`.
        """
        x = source_image
        if self.code_features:
            x = jnp.concatenate([x, source_codes.astype(x.dtype)], axis=-1)
        return self.encoder(x, train=train)

    def decode(
        self,
        features: SourcePyramid,
        source_image: Float[Array, "b h w 3"],
        guidance: GuidanceMaps,
        *,
        train: bool,
        with_intermediates: bool,
    ) -> dict[str, Any]:
        """The frame.

        Args:
          features: of `encode`.
          source_image: RGB in [0, 1].
          guidance: of `draw_driving`.
          train: see `__call__`.
          with_intermediates: everything but the prediction too.

        Returns:
          `prediction` (b h w 3) in [0, 1]; and `deformed`, the source warped by the finest flow;
          `alpha` (b h w 1), used when blending; `flows`, coarse to fine; `warped_sources`, the
          source shrunk by area means and warped by each of them.
        """
        strides = [2**level for level in range(1, self.num_levels)]
        modulation = guidance.modulation()
        pyramid = {1: modulation} | guidance_pyramid(
            modulation,
            strides,
            implementation="strided" if self.implementation == "fast" else "literal",
        )
        mesh_flows = {
            stride: level[..., -2:] if self.with_flow else jnp.zeros_like(level[..., :2])
            for stride, level in pyramid.items()
        }
        frame = self.decoder(features, pyramid, mesh_flows, train=train)
        result: dict[str, Any] = {"prediction": frame.rgb}
        if self.alpha_blend or self.residual or with_intermediates:
            deformed = self._warped(source_image, frame.flows[-1])
        if self.residual:
            result["prediction"] = jnp.clip(deformed + (2.0 * frame.rgb - 1.0), 0.0, 1.0)
        elif self.alpha_blend:
            result["prediction"] = frame.rgb * frame.alpha + deformed * (1.0 - frame.alpha)
        if with_intermediates:
            sources = [
                average_pool(source_image, source_image.shape[1] // flow.shape[1])
                for flow in frame.flows[:-1]
            ]
            warped = [self._warped(*pair) for pair in zip(sources, frame.flows[:-1], strict=True)]
            result |= {
                "deformed": deformed,
                "alpha": frame.alpha,
                "flows": frame.flows,
                "warped_sources": [*warped, deformed],
            }
        return result

    def _warped(self, image: Array, flow: Array) -> Array:
        return warp_by_flow(image, flow, align_corners=self.align_corners)


def _check_levels(resolution: int, num_levels: int, flow_stride: int, single_scale: bool) -> None:
    coarsest = 2 ** (num_levels - 1)
    if num_levels < 2 or resolution % coarsest:
        raise ArgumentError(
            requirement(
                "num_levels",
                f"be at least 2, and {resolution} pixels divisible by 2^(num_levels - 1)",
                num_levels,
                "The released model has 6 at 256 pixels.",
            )
        )
    legal = [2**level for level in range(1, num_levels)]
    if single_scale and flow_stride not in legal:
        raise ArgumentError(
            requirement(
                "flow_stride", "be the stride of a level", flow_stride, f"Use one of {legal}."
            )
        )
