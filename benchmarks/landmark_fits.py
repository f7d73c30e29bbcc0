"""How well landmarks alone place a face model: held-out points, jitter, exact truth, speed.

    python benchmarks/landmark_fits.py --output benchmarks/results/landmark_fits.json

Real clips (`../shared/media`, or the folder of $TALKING_HEADS_SHARED): of the 51 inner points a
quarter is held out of the fit and predicted by it; four splits drawn by one seed, so that every
point is held out once. Errors are shares of the outer-eye-corner distance seen in the same frame.
Jitter is `tracking.smoothing.jitter` (high-frequency energy) of the landmarks as they came, as
fitted frame by frame, and as fitted with the default smoothness. Synthetic clips: the recovered
angles, shape and expression against the exact ones. Speed: warm, whole clip, seconds per frame.

Resumable: a row that is in the output is not measured again.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurement import ROOT, describe_run, print_table, write_results

SPLIT_SEED, NUM_SPLITS = 0, 4
#: Synthetic identities are of the validation split: (identity, frames).
SYNTHETIC = ((10_000, 64), (10_001, 64), (10_002, 64))
SYNTHETIC_SIZE = 256


def eye_distances(points: np.ndarray) -> np.ndarray:
    """(t 1) outer-eye-corner distance in each frame, pixels."""
    return np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)[:, None]


def splits() -> list[np.ndarray]:
    """The held-out points of each split."""
    order = 17 + np.random.default_rng(SPLIT_SEED).permutation(51)
    return np.array_split(order, NUM_SPLITS)


def measure_clip(model: Any, points: np.ndarray, size: tuple[int, int], fps: float) -> dict:
    """One clip and model: held-out errors, coefficients, jitter and speed."""
    from talking_heads_jax.tracking.fitting import FitOptions, fit_clip, fit_landmarks_px
    from talking_heads_jax.tracking.smoothing import jitter

    options = FitOptions(fps=fps)
    distance = eye_distances(points)
    held, fitted = [], []
    for out in splits():
        weights = np.ones(points.shape[:2])
        weights[:, out] = 0
        fit = fit_clip(model, points, image_size=size, weights=weights, options=options)
        error = np.linalg.norm(fit_landmarks_px(model, fit) - points, axis=-1) / distance
        held.append(error[:, out])
        fitted.append(error[:, np.setdiff1d(np.arange(17, 68), out)])
    held_all = np.concatenate([part.ravel() for part in held])
    loose = fit_clip(
        model, points, image_size=size, options=dataclasses.replace(options, smoothness=0.0)
    )
    start, start_cpu = time.perf_counter(), time.process_time()
    smooth = fit_clip(model, points, image_size=size, options=options)
    wall, busy = time.perf_counter() - start, time.process_time() - start_cpu
    inner, length = slice(17, 68), float(np.median(distance))
    low, high = np.nanmin(smooth.expression_coeffs), np.nanmax(smooth.expression_coeffs)
    return {
        "frames": len(points),
        "held_out_median": float(np.median(held_all)),
        "held_out_median_per_split": [float(np.median(part)) for part in held],
        "held_out_p90": float(np.quantile(held_all, 0.9)),
        "fitted_median": float(np.median(np.concatenate([part.ravel() for part in fitted]))),
        "largest_shape_coefficient": float(np.abs(smooth.shape_coeffs).max()),
        "expression_range": [float(low), float(high)],
        "jaw_range_deg": [
            float(np.rad2deg(limit(smooth.joint_pose[:, 3 * model.joint_names.index("jaw")])))
            for limit in (np.min, np.max)
        ],
        "jitter_landmarks": jitter(points[:, inner], length=length),
        "jitter_frame_by_frame": jitter(fit_landmarks_px(model, loose)[:, inner], length=length),
        "jitter_smooth": jitter(fit_landmarks_px(model, smooth)[:, inner], length=length),
        "jitter_angles_frame_by_frame_deg": jitter(np.rad2deg(loose.angles)),
        "jitter_angles_smooth_deg": jitter(np.rad2deg(smooth.angles)),
        "iterations": smooth.iterations,
        "wall_ms_per_frame": 1e3 * wall / len(points),
        "processor_ms_per_frame": 1e3 * busy / len(points),
    }


def rest_landmarks(model: Any, shape: np.ndarray) -> np.ndarray:
    """(51 3) cm: the inner landmarks of an identity at rest, about their middle."""
    from talking_heads_jax.batch import FaceCoefficients

    rest = np.zeros((1, model.num_expression), np.float32)
    vertices = model.vertices(FaceCoefficients(shape[None], rest))
    points = model.centimetres_per_unit * np.asarray(model.landmarks68(vertices))[0, 17:]
    return points - points.mean(axis=0)


def scaled_distance(found: np.ndarray, true: np.ndarray) -> float:
    """Root mean square distance, cm, after the best scale: one camera does not tell the size."""
    scale = np.sum(found * true) / np.sum(found**2)
    return float(np.sqrt(np.mean(np.sum((scale * found - true) ** 2, axis=-1))))


def measure_synthetic(model: Any) -> dict:
    """Recovered against exact values on the synthetic set, whose landmarks are exact."""
    from data_pipeline.synthetic.appearance import draw_shape
    from data_pipeline.synthetic.scene import FOCAL, scene_camera
    from data_pipeline.synthetic.talking_heads import SyntheticTalkingHeads
    from talking_heads_jax.batch import FaceCoefficients
    from talking_heads_jax.geometry.cameras import camera_points, pixels_from_camera_points
    from talking_heads_jax.tracking.fitting import FitOptions, fit_clip

    heads = SyntheticTalkingHeads(size=SYNTHETIC_SIZE, morphable=model)
    camera = scene_camera()
    perspective = FitOptions(camera="perspective", focal_px=FOCAL * SYNTHETIC_SIZE)
    rows: dict[str, dict] = {"weak_perspective": {}, "perspective": {}}
    for number, count in SYNTHETIC:
        states = heads.clip(number, 0, count)
        angles = np.stack([state.angles for state in states])
        expression = np.stack([state.expression_coeffs for state in states])
        pose = np.stack([state.pose for state in states])
        exact = draw_shape(heads.seed, number, tuple(model.shape_names))
        # As the set draws them, without the pictures.
        shapes = np.broadcast_to(exact, (count, len(exact)))
        vertices = model.vertices(FaceCoefficients(shapes, expression, pose))
        world = model.landmarks68(vertices) * model.centimetres_per_unit
        points = np.asarray(
            pixels_from_camera_points(
                camera.intrinsics, camera_points(camera, world), size=SYNTHETIC_SIZE
            ),
            np.float64,
        )
        jaw = model.joint_names.index("jaw")
        for name, options in (("weak_perspective", FitOptions()), ("perspective", perspective)):
            size = (SYNTHETIC_SIZE, SYNTHETIC_SIZE)
            fit = fit_clip(model, points, image_size=size, options=options)

            found, true, mean = (
                rest_landmarks(model, shape) for shape in (fit.shape_coeffs, exact, 0 * exact)
            )
            # Only expressions that the clip uses.
            seen = expression.std(axis=0) > 0.05
            correlation = [
                np.corrcoef(expression[:, i], fit.expression_coeffs[:, i])[0, 1]
                for i in np.flatnonzero(seen)
                if fit.expression_coeffs[:, i].std() > 0
            ]
            values = {
                "angles_deg": np.abs(np.rad2deg(fit.angles - angles)).mean(axis=0).tolist(),
                "identity_landmarks_cm": scaled_distance(found, true),
                "identity_of_the_mean_face_cm": scaled_distance(mean, true),
                "expression": float(np.abs(fit.expression_coeffs - expression)[:, seen].mean()),
                "expression_of_a_still_face": float(np.abs(expression[:, seen]).mean()),
                "expression_correlation": float(np.mean(correlation)),
                "jaw_deg": float(
                    np.abs(np.rad2deg(fit.joint_pose[:, 3 * jaw] - pose[:, jaw, 0])).mean()
                ),
                "reprojection": float(np.mean(fit.reprojection_px / eye_distances(points)[:, 0])),
            }
            rows[name][str(number)] = values
    for values in rows.values():
        values["mean"] = {
            key: np.mean([row[key] for row in values.values()], axis=0).tolist()
            for key in next(iter(values.values()))
        }
    return rows


def find_media() -> Path | None:
    """The folder of real clips beside the repository, or None with a printed reason."""
    shared = Path(os.environ.get("TALKING_HEADS_SHARED", ROOT.parent / "shared"))
    if (shared / "media").is_dir():
        return shared
    print(f"no real clips at {shared / 'media'}: their rows are skipped")
    return None


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["ict", "procedural"])
    parser.add_argument("--clips", nargs="+", help="default: all")
    parser.add_argument("--parts", nargs="+", default=["real", "synthetic"])
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    from talking_heads_jax.morphable.registry import load_morphable, model_from_file

    shared = find_media()
    results: dict[str, Any] = {"real": {}, "synthetic": {}}
    if options.output and options.output.exists():
        results = json.loads(options.output.read_text(encoding="utf-8"))
    results["run"] = describe_run()
    for name in options.models:
        if name != "ict":
            model = load_morphable(name)
        elif shared is not None and (shared / "face3d" / "ict_face.npz").exists():
            model = model_from_file("ict", shared / "face3d" / "ict_face.npz")
        else:
            print("no ICT-FaceKit model: its rows are skipped")
            continue
        done = results["real"].setdefault(name, {})
        files = sorted((shared / "media").glob("*_landmarks.npz")) if shared else []
        about = json.loads((shared / "media" / "meta.json").read_text()) if files else {}
        for path in files if "real" in options.parts else []:
            clip = path.name.removesuffix("_landmarks.npz")
            wanted = clip in options.clips if options.clips else not clip.startswith("still_")
            if not wanted or clip in done:
                continue
            with np.load(path) as arrays:
                points = arrays["landmarks68_px"].astype(np.float64)
            done[clip] = measure_clip(model, points, (256, 256), about[clip]["fps"])
            print(f"{name} {clip}: {json.dumps(done[clip])}", flush=True)
            if options.output:
                write_results(options.output, results)
        if "synthetic" in options.parts and name not in results["synthetic"]:
            results["synthetic"][name] = measure_synthetic(model)
            print(f"{name} synthetic: {json.dumps(results['synthetic'][name])}", flush=True)
            if options.output:
                write_results(options.output, results)
    print_real(results["real"])
    print_synthetic(results["synthetic"])
    return 0


def print_real(rows: dict[str, dict]) -> None:
    """The table of the real clips."""
    print_table(
        [
            *("model, clip", "frames", "held out", "90 %", "fitted", "shape", "jitter raw"),
            *("framewise", "smooth", "angles framewise", "smooth", "ms/frame"),
        ],
        [
            [
                f"{model} {clip}",
                f"{row['frames']}",
                f"{100 * row['held_out_median']:.2f} %",
                f"{100 * row['held_out_p90']:.2f} %",
                f"{100 * row['fitted_median']:.2f} %",
                f"{row['largest_shape_coefficient']:.2f}",
                f"{100 * row['jitter_landmarks']:.2f} %",
                f"{100 * row['jitter_frame_by_frame']:.2f} %",
                f"{100 * row['jitter_smooth']:.2f} %",
                f"{row['jitter_angles_frame_by_frame_deg']:.2f}",
                f"{row['jitter_angles_smooth_deg']:.2f}",
                f"{row['processor_ms_per_frame']:.1f}",
            ]
            for model, clips in rows.items()
            for clip, row in clips.items()
        ],
    )


def print_synthetic(rows: dict[str, dict]) -> None:
    """The table of the synthetic clips."""
    print_table(
        [
            *("model, camera", "yaw", "pitch", "roll", "identity", "mean face"),
            *("expression", "still face", "correlation", "jaw"),
        ],
        [
            [
                f"{model} {camera}",
                *(f"{angle:.2f}" for angle in values["mean"]["angles_deg"]),
                f"{values['mean']['identity_landmarks_cm']:.2f} cm",
                f"{values['mean']['identity_of_the_mean_face_cm']:.2f} cm",
                f"{values['mean']['expression']:.3f}",
                f"{values['mean']['expression_of_a_still_face']:.3f}",
                f"{values['mean']['expression_correlation']:.2f}",
                f"{values['mean']['jaw_deg']:.2f}",
            ]
            for model, cameras in rows.items()
            for camera, values in cameras.items()
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
