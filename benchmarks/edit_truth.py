"""How much of an edit a mesh-driven checkpoint shows, against exact renders of the edited head.

    python benchmarks/edit_truth.py --checkpoint MODEL --output benchmarks/results/edit_truth.json

People of the built-in set's test split are rendered in a pose of their own and again in the edited
state; shoulders stay, so that the renderer can draw it. Per edit and person, over the head's pixels
before or after:

share: of the true change, along its own direction: <p - p0, t - t0> / |t - t0|², p and t the edited
    prediction and render, p0 and t0 those of the unedited state. 1 is all of it, 0 none.
edit_l1, copy_l1: mean error, in levels of 0 to 255, where the truth changes by more than 6 levels:
    of the prediction, and of leaving the source as it is.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurement import describe_run, print_table, write_results
from data_pipeline.synthetic.exact_motion import exact_track
from data_pipeline.synthetic.identities import IDENTITY_RANGES
from data_pipeline.synthetic.talking_heads import SyntheticTalkingHeads
from talking_heads_jax.checkpoints import load_model
from talking_heads_jax.inference.edit_changes import parse_setting
from talking_heads_jax.inference.editing import STAY, edit_track, rotation_of
from talking_heads_jax.inference.mesh_animator import MeshAnimator
from talking_heads_jax.inference.mesh_motion import load_driver_model

EDITS = {
    "head.yaw+=20": ("head.yaw+=20",),
    "head.yaw+=-20": ("head.yaw+=-20",),
    "head.pitch+=10": ("head.pitch+=10",),
    "jaw.open=20": ("jaw.open=20",),
    "eyes.yaw=25": ("eyes.yaw=25",),
    "eyes.yaw=-25": ("eyes.yaw=-25",),
    "both smiles=1": ("expression.smile_L=1", "expression.smile_R=1"),
    "both blinks=1": ("expression.blink_L=1", "expression.blink_R=1"),
    "brows up=1": (
        "expression.brow_inner_up=1",
        "expression.brow_outer_up_L=1",
        "expression.brow_outer_up_R=1",
    ),
}
_VISIBLE = 6.0  # levels


def person_rows(
    heads: SyntheticTalkingHeads, animator: MeshAnimator, number: int
) -> dict[str, dict[str, float]]:
    """Of one person, per edit: share, edit_l1, copy_l1."""
    model = heads.model
    state = heads.clip(number, num_frames=1)[0]
    drawn = heads.render(number, state)
    face = drawn.coefficients
    source = exact_track(
        model,
        size=heads.size,
        shape_coeffs=face.shape_coeffs,
        expression_coeffs=face.expression_coeffs,
        joint_pose=face.pose,
        angles=drawn.angles,
        landmarks68_px=drawn.landmarks68_px,
        landmarks68_visible=drawn.landmarks68_visible,
    )
    own = edit_track(source, model, [])
    animator.set_source(drawn.image, next(own.meshes(model)))
    before = next(animator.frames(own.meshes(model))).astype(np.float64)
    rows = {}
    for name, texts in EDITS.items():
        clip = edit_track(source, model, [*map(parse_setting, texts)], shoulders=STAY)
        shown = next(animator.frames(clip.meshes(model))).astype(np.float64)
        pose = clip.track.joint_pose[0].reshape(-1, 3).copy()
        turn = rotation_of(np.rad2deg(clip.track.angles))[0]  # the renderer's root holds it
        pose[0] = (turn * Rotation.from_rotvec(pose[0])).as_rotvec()
        edited = state._replace(
            angles=clip.track.angles[0],
            expression_coeffs=clip.track.expression_coeffs[0],
            pose=pose,
        )
        truth = heads.render(number, edited)
        head = (truth.mask > 0) | (drawn.mask > 0)
        change = truth.image.astype(np.float64) - drawn.image
        seen = head & (np.abs(change).max(-1) > _VISIBLE)
        error = np.abs(shown - truth.image)[seen]
        true, ours = change[head], (shown - before)[head]
        rows[name] = {
            "share": float((ours * true).sum() / max((true * true).sum(), 1.0)),
            "edit_l1": float(error.mean()) if len(error) else 0.0,
            "copy_l1": float(np.abs(change)[seen].mean()) if len(error) else 0.0,
        }
    return rows


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="on the built-in head")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    loaded = load_model(options.checkpoint)
    driver = load_driver_model(loaded.model)
    heads = SyntheticTalkingHeads(size=loaded.model.resolution, morphable=driver, num_threads=1)
    animator = MeshAnimator(loaded.model, loaded.variables)
    numbers = IDENTITY_RANGES["test"][: options.people]
    people = [person_rows(heads, animator, number) for number in numbers]
    rows = []
    for name in EDITS:
        values = {key: [row[name][key] for row in people] for key in people[0][name]}
        low, middle, high = np.percentile(values["share"], [0, 50, 100]).round(3).tolist()
        rows.append(
            {
                "edit": name,
                "share": middle,
                "share_range": [low, high],
                "edit_l1": round(float(np.mean(values["edit_l1"])), 2),
                "copy_l1": round(float(np.mean(values["copy_l1"])), 2),
            }
        )
    print_table(
        ["edit", "share (median)", "least", "most", "L1 edited", "L1 copied"],
        [
            [
                row["edit"],
                *(f"{value:.2f}" for value in (row["share"], *row["share_range"])),
                *(f"{row[key]:.1f}" for key in ("edit_l1", "copy_l1")),
            ]
            for row in rows
        ],
    )
    content = {
        **describe_run(),
        "people": options.people,
        "resolution": loaded.model.resolution,
        "step": loaded.info.get("step"),
        "rows": rows,
    }
    write_results(options.output, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
