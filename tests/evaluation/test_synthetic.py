"""The synthetic protocols from the command line, on a set that is rendered here."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import ndimage

from configs.gdpw import synthetic_64
from data_pipeline.schema import MANIFEST
from data_pipeline.synthetic.exact_frames import ExactFrames
from data_pipeline.synthetic.writing import write_talking_heads
from talking_heads_jax.build import build_model, config_values, open_clips, open_exact_truth
from talking_heads_jax.checkpoints import save_model
from talking_heads_jax.errors import DataError
from talking_heads_jax.evaluation.answers import Answer, DrivingBatch, Predict, Task
from talking_heads_jax.evaluation.mesh_answers import MotionMeshes, without_faceless
from talking_heads_jax.evaluation.pairs import build_pairs
from talking_heads_jax.evaluation.runner import evaluate_pairs
from talking_heads_jax.media.image import write_image
from talking_heads_jax.morphable.registry import load_morphable
from tests.evaluation.toys import protocol
from tests.scripts import run_script

SIDE, FRAMES = 64, 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people of the split `test`, five frames of each."""
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    write_talking_heads(
        folder,
        size=SIDE,
        identities={"test": 3},
        num_frames=FRAMES,
        extras=("vertices",),
        progress=False,
    )
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A debug-size GDPW, freshly initialised."""
    config = synthetic_64.get_config("debug,geometry")
    model = build_model(config)
    variables = model.init(jax.random.key(0), model.inference_networks)
    folder = tmp_path_factory.mktemp("gdpw") / "model"
    save_model(folder, model, variables, config=config_values(config))
    return folder


@pytest.fixture(scope="module")
def clips(data: Path) -> dict:
    return open_clips(data, split="test")


def test_exact_truth_renders_what_the_data_set_holds(data: Path, clips: dict) -> None:
    truth = open_exact_truth(data, clips=clips, split="test")
    pairs = build_pairs(protocol("synthetic_cross"), clips.values()).pairs
    for pair in pairs:
        clip = clips[pair.source_clip]
        own = type(pair)(**{**pair.__dict__, "driving_clip": pair.source_clip})
        for number in (0, FRAMES - 1):
            np.testing.assert_array_equal(truth.image(own, number), clip.frames[number])
            np.testing.assert_array_equal(truth.mask(own, number), clip.masks[number])
            np.testing.assert_array_equal(truth.landmarks(own, number), clip.landmarks[number])
        # Somebody else's motion: neither the source's picture nor the driving frame.
        shown = truth.image(pair, 3).astype(float)
        for other in (clip.frames[3], clips[pair.driving_clip].frames[3]):
            assert np.abs(shown - other).mean() > 3
        # But the source's background: it stands still, and belongs to the person.
        # Pixels of the outline are mixed: one of them and its neighbours are left out.
        heads = np.maximum(truth.mask(pair, 3), clip.masks[0])
        background = ndimage.maximum_filter(heads, size=3) == 0
        assert background.mean() > 0.2
        np.testing.assert_array_equal(shown[background], clip.frames[0][background])
        # The rival has the source's paint and place, and another outline.
        rival = truth.rival(pair, 3).astype(float)
        heads = np.maximum(heads, np.abs(rival - shown).max(axis=-1) > 0)
        np.testing.assert_array_equal(rival[heads == 0], shown[heads == 0])
        assert (
            1
            < np.abs(rival - shown).mean()
            < np.abs(clips[pair.driving_clip].frames[3] - shown).mean()
        )


def test_exact_meshes_are_the_drivers_motion_on_the_sources_shape(data: Path, clips: dict) -> None:
    truth = open_exact_truth(data, clips=clips, split="test")
    pair = build_pairs(protocol("synthetic_cross"), clips.values()).pairs[0]
    own = type(pair)(**{**pair.__dict__, "driving_clip": pair.source_clip})
    source, driver = clips[pair.source_clip], clips[pair.driving_clip]
    stored = truth.vertices(own, 3)
    np.testing.assert_allclose(stored, source.vertices[3], atol=1 / 32)  # rounded on disk
    moved = truth.vertices(pair, 3)
    # The landmarks of the exact picture are those of the mesh.
    model = load_morphable("procedural")
    drawn = np.asarray(model.landmarks68(moved[None]))[0, :, :2]
    np.testing.assert_allclose(drawn, truth.landmarks(pair, 3), atol=0.05)  # perspective
    for other in (source.vertices[3], driver.vertices[3]):
        assert np.abs(moved - other).max() > 1


def test_records_alone_put_the_drivers_motion_on_the_sources_shape(data: Path, clips: dict) -> None:
    truth = open_exact_truth(data, clips=clips, split="test")
    pairs = build_pairs(protocol("synthetic_cross"), clips.values()).pairs
    meshes = MotionMeshes(pairs, clips, None, same=False, morphables={"procedural"})
    for pair in pairs:
        found = meshes.driving(pair, [1, 4], 3)
        exact = np.stack([truth.vertices(pair, number) for number in (1, 4, 4)])
        np.testing.assert_allclose(found, exact, atol=1 / 32)  # vertices are rounded on disk
        stored = np.stack([clips[pair.driving_clip].vertices[number] for number in (1, 4, 4)])
        assert np.abs(exact - stored).max() > 1


def test_records_that_cannot_lend_their_motion_are_named(clips: dict) -> None:
    pairs = build_pairs(protocol("synthetic_cross"), clips.values()).pairs

    def opened(same: bool = False, morphables: tuple[str, ...] = (), **columns) -> MotionMeshes:
        changed = {name: clip._replace(**columns) for name, clip in clips.items()}
        return MotionMeshes(pairs, changed, None, same=same, morphables=morphables)

    for same in (True, False):
        with pytest.raises(DataError, match="face model 'flame2020', got 'procedural'"):
            opened(same, ("flame2020",))
    with pytest.raises(DataError, match="no face was found in it"):
        opened(morphable=[""] * FRAMES)
    with pytest.raises(DataError, match="got no morphable, shape_coeffs"):
        opened(morphable=None, shape_coeffs=None)
    opened(same=True, morphable=None, shape_coeffs=None).driving(pairs[0], [1], 1)
    wrong = opened(shape_coeffs=clips[pairs[0].source_clip].shape_coeffs)
    with pytest.raises(DataError, match=rf"{pairs[0].name}.* be those of the coefficients"):
        wrong.driving(pairs[0], [1], 1)


def test_without_faceless_leaves_out_pairs_without_a_mesh(clips: dict) -> None:
    drawn = build_pairs(protocol("synthetic_cross"), clips.values())
    assert without_faceless(drawn, clips) == (drawn, ())
    one = drawn.pairs[0].source_clip
    for changed in (
        {"morphable": [""] * FRAMES},
        {"morphable": None, "vertices": [np.full((4, 3), np.nan)] * FRAMES},
    ):
        found, lost = without_faceless(drawn, {**clips, one: clips[one]._replace(**changed)})
        assert lost == (one,)
        # In a ring of people everybody is once the source and once the driver.
        assert len(found.pairs) == len(drawn.pairs) - 2
        assert not any(one in (pair.source_clip, pair.driving_clip) for pair in found.pairs)
    nobody = {name: clip._replace(morphable=[""] * FRAMES) for name, clip in clips.items()}
    with pytest.raises(DataError, match="show two clips with a face mesh"):
        without_faceless(drawn, nobody)


def test_mesh_driven_systems_cross_identities_without_exact_truth(data: Path, clips: dict) -> None:
    class Spy(Answer):
        uses_vertices, morphable = True, "procedural"

        def bind(self, task: Task) -> Predict:
            def predict(batch: DrivingBatch) -> np.ndarray:
                numbers = task.pair.driving_frames[batch.start : batch.start + batch.count]
                for number, vertices in zip(numbers, batch.vertices, strict=False):
                    given[task.pair, number] = vertices
                return np.float32(batch.frames)

            return predict

    given = {}
    pair_list = build_pairs(protocol("cross_identity"), clips.values())
    found = evaluate_pairs({"model": Spy()}, pair_list, clips, batch_size=3)
    assert not found.values and len(given) == sum(found.num_frames) == 6 * FRAMES
    truth = open_exact_truth(data, clips=clips, split="test")
    for pair, number in list(given)[::7]:
        exact = truth.vertices(pair, number)
        np.testing.assert_allclose(given[pair, number], exact, atol=1 / 32)
    Spy.morphable = "ict"
    with pytest.raises(DataError, match="face model 'ict', got 'procedural'"):
        evaluate_pairs({"model": Spy()}, pair_list, clips)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["synthetic_same", "synthetic_cross"])
def test_a_mesh_driven_checkpoint_is_scored_beside_the_bare_warp(
    name: str, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["--checkpoint", checkpoint, "--data", data, "--output", tmp_path / "o"]
    arguments += ["--metrics", "l1/masked-face,retrieval_mouth", "--protocol", name]
    assert run_script("run_eval.py", arguments) == 0
    rows = json.loads((tmp_path / "o" / "metrics.json").read_text())["rows"]
    errors = {row: columns["l1/masked-face"]["mean"] for row, columns in rows.items()}
    assert np.isfinite(errors["model"]) and errors["model"] > errors["warp_source_by_mesh"]
    # The meshes belong to the frames that are scored, so that even the bare warp is far better.
    assert errors["warp_source_by_mesh"] < 0.75 * errors["copy_source"]
    assert rows["warp_source_by_mesh"]["retrieval_mouth"]["mean"] > 0.5


def test_exact_truth_shrinks_as_the_loader_does(data: Path) -> None:
    clips = open_clips(data, split="test", resolution=32)
    truth = open_exact_truth(data, clips=clips, split="test")
    pair = build_pairs(protocol("synthetic_cross"), clips.values()).pairs[0]
    own = type(pair)(**{**pair.__dict__, "driving_clip": pair.source_clip})
    clip = clips[pair.source_clip]
    np.testing.assert_array_equal(truth.image(own, 2), clip.frames[2])
    np.testing.assert_array_equal(truth.mask(own, 2), clip.masks[2])
    np.testing.assert_allclose(truth.landmarks(own, 2), clip.landmarks[2], rtol=1e-6)


def test_exact_truth_refuses_other_data_sets(data: Path, clips: dict, tmp_path: Path) -> None:
    name, clip = next(iter(clips.items()))
    with pytest.raises(DataError, match="hold the pictures that this version renders"):
        ExactFrames(data).check(name, 255 - clip.frames[0])
    with pytest.raises(DataError, match="name its clips SPLIT/IDENTITY-TAKE"):
        ExactFrames(data).render("video.mp4", name, 0)
    with pytest.raises(DataError, match=f"have frame {FRAMES} of {name}"):
        ExactFrames(data).render(name, name, FRAMES)
    for changes, message in (
        ({"pictures": -1}, "hold pictures of version"),
        ({"made_by": "somebody"}, "be made by `talking-heads synthesize`"),
        ({"stride": "two"}, "no stride"),
        ({"motion": None}, "no motion"),
    ):
        manifest = json.loads((data / MANIFEST).read_text())
        manifest["options"]["recipe"] |= changes
        (tmp_path / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(DataError, match=re.escape(message)):
            ExactFrames(tmp_path)


@pytest.mark.parametrize("name", ["synthetic_same", "synthetic_cross"])
def test_perfect_frames_score_perfectly(name: str, data: Path, clips: dict, tmp_path: Path) -> None:
    truth = open_exact_truth(data, clips=clips, split="test")
    for pair in build_pairs(protocol(name), clips.values()).pairs:
        for number in pair.driving_frames:
            write_image(tmp_path / "exact" / pair.name / f"{number}.png", truth.image(pair, number))
    arguments = ["--predictions", f"exact={tmp_path / 'exact'}", "--protocol", name]
    assert run_script("run_eval.py", [*arguments, "--data", data, "--output", tmp_path / "o"]) == 0
    document = json.loads((tmp_path / "o" / "metrics.json").read_text())
    row = {recipe: column["mean"] for recipe, column in document["rows"]["exact"].items()}
    assert row["l1/masked-face"] == row["l1/masked-mouth"] == row["l1/masked-eyes"] == 0
    assert row["retrieval_mouth"] == row["retrieval_eyes"] == 1
    assert row.get("shape_kept", 1.0) == pytest.approx(1.0)
    assert ("shape_kept" in row) == (name == "synthetic_cross")
    assert document["num_identities"] == 3 and document["references"]["chance"]
    copied = document["rows"]["copy_source"]
    assert copied["retrieval_mouth"]["mean"] == pytest.approx(1 / 3)
    assert copied["l1/masked-face"]["mean"] > 0.02
    # What is left is the probe's own error on these frames.
    assert row["probe_landmarks_px"] < copied["probe_landmarks_px"]["mean"]
    table = (tmp_path / "o" / "table.md").read_text()
    assert "| the probe's own error |" in table and "- probe: trained on" in table


def test_exact_truth_is_asked_for_by_the_protocol_alone(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["options"]["recipe"]["made_by"] = "somebody"
    (other / MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / "frames").mkdir()
    arguments = ["--predictions", f"f={tmp_path / 'frames'}", "--data", other]
    arguments += ["--protocol", "synthetic_cross", "--output", tmp_path / "o"]
    assert run_script("run_eval.py", arguments) == 2
    error = capfd.readouterr().err
    assert "be made by `talking-heads synthesize`" in error and "Traceback" not in error
    # A protocol without truth asks nobody: here only the frames are missing.
    arguments[arguments.index("synthetic_cross")] = "cross_identity"
    assert run_script("run_eval.py", arguments) == 2
    error = capfd.readouterr().err
    assert "made by" not in error and "frames" in error
