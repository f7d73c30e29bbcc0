"""Seconds per frame of every stage of tracking: detect, find landmarks, fit, crop, parse, encode.

    python benchmarks/track_stages.py --output benchmarks/results/track_stages_<machine>.json

One photograph (scikit-image's astronaut, 512 pixels; noise where scikit-image is not installed)
stands for every frame, landmarks are those of the built-in head, turning. FAN and the parsing
network have random weights: their numbers do not change the time. Stages are timed in turns, warm,
alone; a stage that takes a whole clip is divided by its frames. `--ict FILE` adds fits of
ICT-FaceKit. The processor time counts all threads.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurement import describe_run, interleave, print_table, write_results

SIZE, CROP = 512, 256
FRAMES = 64  # of a clip
_YAW_DEG, _PIXELS_PER_CM, _NOISE_PX = 20.0, 9.0, 0.3

#: What a call does, and how many frames it is for.
Case = tuple[Callable[[], Any], int]


def portrait() -> np.ndarray:
    """(512 512 3) uint8."""
    try:
        from skimage.data import astronaut
    except ImportError:
        rng = np.random.default_rng(0)
        return np.kron(rng.integers(0, 255, (64, 64, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    return np.ascontiguousarray(astronaut())


def turning_landmarks(model: Any, frames: int, size: int, seed: int = 0) -> np.ndarray:
    """(t 68 2) float32 pixels: landmarks of a head that turns from side to side, with noise.

    Args:
      model: whose landmarks.
      frames: of the clip.
      size: of its pictures.
      seed: of the noise, and when the head starts to turn.
    """
    from talking_heads_jax.geometry.cameras import head_rotation_from_angles

    neutral = model.neutral()
    landmarks = np.asarray(model.landmarks68(model.vertices(neutral), neutral))[0]
    yaw = np.deg2rad(_YAW_DEG) * np.sin(np.arange(frames) / 8 + seed)
    angles = np.stack([yaw, 0.3 * yaw, 0 * yaw], -1).astype(np.float32)
    turned = np.einsum("tij,nj->tni", np.asarray(head_rotation_from_angles(angles)), landmarks)
    scale = _PIXELS_PER_CM * size / 256 * model.centimetres_per_unit
    noise = np.random.default_rng(seed).normal(0, _NOISE_PX * size / 256, (frames, 68, 2))
    return (size / 2 + scale * turned[..., :2] * (1, -1) + noise).astype(np.float32)


def random_variables(module: Any, side: int) -> Any:
    """Variables of a network: small positive numbers, variances among them."""
    import jax

    from talking_heads_jax.networks.weights import variable_shapes

    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.uniform(1e-3, 2e-2, leaf.shape).astype(leaf.dtype),
        variable_shapes(module, side),
    )


def reading_stages(frame: np.ndarray, folder: Path) -> dict[str, Case]:
    """What is done with the frames of a file."""
    from talking_heads_jax.errors import AssetNotFoundError
    from talking_heads_jax.media.video import VideoReader, VideoWriter
    from talking_heads_jax.tracking.detection import find_detector

    path = folder / "clip.mp4"
    with VideoWriter(path, 25, frame.shape[:2]) as writer:
        for index in range(FRAMES):
            writer.write(np.roll(frame, index, axis=1))

    def decode() -> None:
        with VideoReader(path) as reader:
            for _ in reader:
                pass

    cases: dict[str, Case] = {"decode": (decode, FRAMES)}
    for name in ("cascade", "dlib"):
        try:
            detector = find_detector(name)
        except AssetNotFoundError as error:
            print(error)
            continue
        cases[f"detect, {name}, one look"] = (lambda d=detector: d.detect(frame), 1)
    return cases


def network_stages(frame: np.ndarray, crop: np.ndarray, box: np.ndarray) -> dict[str, Case]:
    """The networks, random weights."""
    from talking_heads_jax.networks import face_parsing, fan

    landmarker = random_variables(fan.FaceAlignmentNetwork(), fan.FAN_SIDE)
    parser = random_variables(face_parsing.FaceParsingNetwork(), face_parsing.PARSING_SIDE)
    return {
        "landmarks, FAN": (lambda: fan.find_landmarks(landmarker, frame, [box]), 1),
        "parse": (lambda: face_parsing.parse_image(parser, crop), 1),
    }


def fit_stages(name: str, model: Any) -> dict[str, Case]:
    """Fits, and the meshes of them."""
    from talking_heads_jax.tracking.fitting import fit_clip, fit_vertices_px

    points = turning_landmarks(model, FRAMES, SIZE)
    fit = fit_clip(model, points, image_size=(SIZE, SIZE))
    return {
        f"fit, {name}": (lambda: fit_clip(model, points, image_size=(SIZE, SIZE)), FRAMES),
        f"vertices, {name}": (lambda: fit_vertices_px(model, fit), FRAMES),
    }


def picture_stages(frame: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, dict[str, Case]]:
    """A crop, and the stages that need pictures only."""
    from talking_heads_jax.media.image import encode_image
    from talking_heads_jax.tracking.alignment import align_clip, warp_to_crop
    from talking_heads_jax.tracking.landmarks import Landmarks
    from talking_heads_jax.tracking.paste import paste_back
    from talking_heads_jax.tracking.smoothing import one_euro
    from talking_heads_jax.tracking.tracker import TrackOptions, track_frames

    marks = Landmarks(points, np.ones(points.shape[:2], np.uint8))
    alignment = align_clip("prepare", frame.shape[:2], landmarks_px=points, size=CROP)[0]
    crop, times = warp_to_crop(frame, alignment), np.arange(FRAMES) / 25
    plain = TrackOptions(morphable="none")

    def follow() -> None:
        track_frames([frame] * FRAMES, fps=25.0, landmarks=marks, options=plain)

    return crop, {
        "follow, cuts": (follow, FRAMES),
        "smooth, one-euro": (lambda: one_euro(points, time_s=times, both_ways=True), FRAMES),
        "crop": (lambda: warp_to_crop(frame, alignment), 1),
        "encode, png": (lambda: encode_image(crop, "png"), 1),
        "encode, jpeg": (lambda: encode_image(crop, "jpeg"), 1),
        "paste back": (lambda: paste_back(frame, crop, alignment), 1),
    }


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ict", type=Path, help="a converted ict_face.npz")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="per stage and repeat, at least")
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    from talking_heads_jax.morphable.registry import load_morphable, model_from_file

    frame, model = portrait(), load_morphable("procedural")
    points = turning_landmarks(model, FRAMES, SIZE)
    box = np.concatenate([points[0].min(0), points[0].max(0)])
    crop, pictures = picture_stages(frame, points)
    with tempfile.TemporaryDirectory() as folder:
        cases = reading_stages(frame, Path(folder)) | pictures | network_stages(frame, crop, box)
        cases |= fit_stages("procedural", model)
        if options.ict is not None:
            cases |= fit_stages("ict", model_from_file("ict", options.ict))
        timings = interleave(
            {name: call for name, (call, _) in cases.items()},
            repeats=options.repeats,
            seconds=options.seconds,
        )
    rows = {
        name: {
            "frames_per_call": frames,
            "min_ms_per_frame": 1e3 * timings[name]["min_s"] / frames,
            "median_ms_per_frame": 1e3 * timings[name]["median_s"] / frames,
            "processor_ms_per_frame": 1e3 * timings[name]["processor_median_s"] / frames,
        }
        for name, (_, frames) in cases.items()
    }
    print_table(
        ["stage", "least ms/frame", "median", "processor"],
        [
            [
                name,
                f"{row['min_ms_per_frame']:.2f}",
                f"{row['median_ms_per_frame']:.2f}",
                f"{row['processor_ms_per_frame']:.2f}",
            ]
            for name, row in rows.items()
        ],
    )
    content = {**describe_run(), "size": SIZE, "crop": CROP, "frames": FRAMES, "rows": rows}
    write_results(options.output, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
