"""How `prepare --track` tracks, as values that a manifest and a fingerprint hold. Free of jax."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from data_pipeline.mesh import Mesh, mesh_of_model
from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.tracking.tracker import NO_MODEL, TrackOptions

LONGEST, ALL = "longest", "all"
SHOTS = (LONGEST, ALL)

#: The fixed network whose registered weights make `prepare --track` write masks.
PARSING_ASSET = "face_parsing"
LANDMARK_ASSET = "fan"


@dataclasses.dataclass(frozen=True)
class TrackRequest:
    """What decides the tracked fields of a data set's records.

    Attributes:
      morphable: the face model that is fitted, or 'none' for landmarks alone.
      detector: see `tracking.detection.find_detector`.
      recipe: how crops lie about the face, see `tracking.alignment.RECIPES`.
      smooth: 'none', 'one_euro' or 'gaussian'.
      camera: 'weak_perspective' or 'perspective'.
      shots: of a clip with cuts keep the 'longest' stretch, or 'all'.
      vertices: whether records hold the mesh's vertices.
      assets: registered file → SHA-256, of those that have a part in it.
    """

    morphable: str = "procedural"
    detector: str = "auto"
    recipe: str = "prepare"
    smooth: str = "none"
    camera: str = "weak_perspective"
    shots: str = LONGEST
    vertices: bool = False
    assets: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def options(self, landmarks: Path | None = None) -> TrackOptions:
        """The tracker's options for one clip.

        Args:
          landmarks: the clip's landmark file, or None.

        Raises:
          ArgumentError: an unknown name.
        """
        return TrackOptions(
            detector=self.detector,
            landmarks=landmarks,
            morphable=self.morphable,
            camera=self.camera,
            smooth=self.smooth,
        )


def checked_request(request: TrackRequest) -> TrackRequest:
    """Checks the names, and notes the registered files that have a part in the outcome.

    Args:
      request: as the user gave it.

    Returns:
      The same with `assets`.

    Raises:
      ArgumentError: an unknown name, or vertices without a face model.
      AssetNotFoundError: the face model or the detector is not there.
    """
    from talking_heads_jax.assets import locate_asset, registered_assets
    from talking_heads_jax.morphable.registry import MORPHABLE_NAMES, PROCEDURAL
    from talking_heads_jax.tracking.alignment import RECIPES
    from talking_heads_jax.tracking.detection import find_detector

    check_choice("morphable", request.morphable, (*MORPHABLE_NAMES, NO_MODEL))
    check_choice("recipe", request.recipe, tuple(RECIPES))
    check_choice("shots", request.shots, SHOTS)
    request.options()
    find_detector(request.detector)
    if request.vertices and request.morphable == NO_MODEL:
        raise ArgumentError(
            requirement("vertices", "come with a face model", NO_MODEL, "Name a morphable.")
        )
    if request.morphable not in (NO_MODEL, PROCEDURAL):
        locate_asset(request.morphable)  # raises, with its licence page, where it is missing
    wanted = {request.morphable, PARSING_ASSET, LANDMARK_ASSET, "flame_landmarks"}
    registered = registered_assets()
    hashes = {name: registered[name].sha256 for name in sorted(wanted & registered.keys())}
    return dataclasses.replace(request, assets=hashes)


def not_written(request: TrackRequest) -> list[str]:
    """Which fields the records will lack, and why; for the report.

    Args:
      request: as `checked_request` returned it.
    """
    reasons = []
    if PARSING_ASSET not in request.assets:
        reasons.append(
            "no masks: the weights of face parsing are not registered (talking-heads convert "
            "--model face_parsing FILE)"
        )
    if request.morphable == NO_MODEL:
        reasons.append("no pose, coefficients and cameras: no face model was asked for")
    if not request.vertices:
        reasons.append("no vertices: they were not asked for")
    return reasons


def mesh_of(request: TrackRequest) -> Mesh:
    """The topology of the face model of a request.

    Args:
      request: with vertices.
    """
    from talking_heads_jax.morphable.registry import load_morphable

    return mesh_of_model(load_morphable(request.morphable))


def single_threaded_cpu() -> None:
    """Makes a fresh worker process track on one core; runs before it imports jax.

    There is a process per core already. Accelerators stay with the process that started them: each
    would be asked for its memory by every worker.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
