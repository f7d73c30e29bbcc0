"""The runner scores what a naive loop scores, whatever the batches, shards and order."""

import dataclasses
import json

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data_pipeline.loaders import to_float
from talking_heads_jax.errors import ArgumentError, DataError
from talking_heads_jax.evaluation import report, results
from talking_heads_jax.evaluation.answers import Answer
from talking_heads_jax.evaluation.clips import Clip, as_unit_float
from talking_heads_jax.evaluation.pairs import PairList, build_pairs
from talking_heads_jax.evaluation.runner import ExactTruth
from talking_heads_jax.metrics.recipes import MASKED, RECONSTRUCTION
from tests.evaluation.toys import Halfway, Shifted, evaluate, noise_clips, protocol

CLIPS = noise_clips((6, 4, 9))


@pytest.fixture(scope="module")
def result():
    return evaluate(CLIPS)


def grey(*levels, size=2):
    """Frames of one level each, (t size size 3) uint8."""
    frames = np.zeros((len(levels), size, size, 3), np.uint8)
    frames[:] = np.asarray(levels, np.uint8)[:, None, None, None]
    return frames


def test_a_table_worked_out_by_hand():
    # Clip a: black, then all pixels 51 = 0.2, then 102 = 0.4. Copying the source is wrong by 0.2
    # and 0.4: L1 0.3, PSNR (13.9794 + 7.9588) / 2 = 10.9691. The model goes half of the way: L1
    # 0.15, PSNR (20 + 13.9794) / 2 = 16.9897.
    # Clip b: white, then the upper two of four pixels black. Copying: L1 0.5, mean square 0.5, PSNR
    # 3.0103. The model: those two pixels are wrong by 0.5: L1 0.25, mean square 0.125, 9.0309 dB.
    # Mean over the two pairs: L1 0.4 and 0.2, PSNR 6.9897 and 13.0103.
    # Masks: all of clip a, but nothing in its last frame; the upper pixels of clip b. Copying: 0.2
    # (one frame counts) and 1.0, mean 0.6; the model: half of it.
    second = grey(255, 255)
    second[1, 0] = 0
    masks = {"a": np.ones((3, 2, 2), np.uint8), "b": np.zeros((2, 2, 2), np.uint8)}
    masks["a"][2] = 0
    masks["b"][:, 0] = 7
    clips = {
        "a": Clip("a", grey(0, 51, 102), "ann", masks["a"]),
        "b": Clip("b", second, "bob", masks["b"]),
    }
    found = evaluate(clips, recipes=("l1/unit", "l1/255", "psnr/peak1", "l1/masked-gt"))
    expected = {
        "copy_source": (0.4, 102.0, 6.9897, 0.6),
        "model": (0.2, 51.0, 13.0103, 0.3),
        "copy_driving": (0.0, 0.0, 100.0, 0.0),
    }
    for row, values in expected.items():
        means = [np.mean(column) for column in found.values[row].values()]
        np.testing.assert_allclose(means, values, rtol=1e-5, atol=1e-7)
    table = report.as_markdown(found, {})
    assert "| model | 0.2000 [0.1500, 0.2500] | 51.0000 [38.2500, 63.7500] | 13.0103 " in table
    gain = report.gain_over_trivial(found, found.recipes[0])
    np.testing.assert_allclose(gain.mean, 0.2, atol=1e-6)


def test_means_equal_scikit_images(result):
    for index, clip in enumerate(CLIPS.values()):
        frames = clip.frames.astype(np.float64) / 255
        for recipe, reference in (
            ("psnr/peak1", lambda t, p: peak_signal_noise_ratio(t, p, data_range=1.0)),
            (
                "ssim/gauss11-s1.5-rgb",
                lambda t, p: structural_similarity(
                    t, p, data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False,
                ),
            ),
            (
                "ssim/skimage-default",
                lambda t, p: structural_similarity(t, p, data_range=1.0, channel_axis=-1),
            ),
        ):  # fmt: skip
            expected = np.mean([reference(t, 0.5 * (frames[0] + t)) for t in frames[1:]])
            # Relative: a PSNR of 10 in float32 has no digit beyond 1e-6 of itself.
            np.testing.assert_allclose(result.values["model"][recipe][index], expected, rtol=1e-6)
    assert result.num_frames == [5, 3, 8]


def test_frames_are_the_floats_of_training():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(as_unit_float(levels), to_float(levels))
    assert as_unit_float(levels).dtype == to_float(levels).dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 8])
def test_means_do_not_depend_on_the_batch_size(result, batch_size):
    other = evaluate(CLIPS, batch_size=batch_size)
    for row, columns in result.values.items():
        for recipe in RECONSTRUCTION:
            # Sums of float32 in another order; an SSIM of noise is near 0, its terms are near 1.
            np.testing.assert_allclose(
                columns[recipe], other.values[row][recipe], rtol=1e-6, atol=1e-7
            )


def test_means_do_not_depend_on_the_order(result):
    backwards = PairList(result.pair_list.protocol, result.pair_list.pairs[::-1])
    other = evaluate(dict(reversed(CLIPS.items())), pair_list=backwards)
    assert other.pair_names == result.pair_names[::-1]
    for row, columns in result.values.items():
        for recipe in RECONSTRUCTION:
            assert other.values[row][recipe][::-1] == columns[recipe]
    one, two = (report.as_json(found, {})["rows"]["model"] for found in (result, other))
    for recipe in RECONSTRUCTION:
        # The mean of three float64, added in another order.
        np.testing.assert_allclose(
            list(one[recipe].values()), list(two[recipe].values()), rtol=1e-13
        )


@pytest.mark.parametrize(
    ("name", "extra"),
    [("reconstruction", 2), ("random_pairs", None), ("cross_identity_relative", 1)],
)
def test_shards_join_to_the_last_digit(name, extra, tmp_path):
    clips = noise_clips((4, 3, 5), masks=True)
    options = {"model": Shifted(16), "batch_size": 1} if name.endswith("relative") else {}
    whole = evaluate(clips, name, **options)
    count = 2 if extra is None else len(whole.pairs) + extra  # more than pairs: some are empty
    parts = []
    for index in range(count):
        folder = tmp_path / str(index)
        folder.mkdir()
        part = evaluate(clips, name, shard=(index, count), **options)
        assert part.positions == list(range(index, len(whole.pairs), count))
        results.write_partial(folder, part, {"step": 3}, {"split": "test"})
        back, info, data = results.read_partial(folder)
        assert (info, data) == ({"step": 3}, {"split": "test"})
        parts.append((str(index), back))
    joined = results.merge_results(parts[::-1])
    assert (joined.values, joined.initial_frames) == (whole.values, whole.initial_frames)
    assert bool(whole.initial_frames) == name.endswith("relative")
    assert report.as_markdown(joined, {}) == report.as_markdown(whole, {})
    assert json.dumps(report.as_json(joined, {})) == json.dumps(report.as_json(whole, {}))
    np.testing.assert_array_equal(report.picture_grid(joined), report.picture_grid(whole))


def test_shards_that_do_not_belong_together_are_refused(tmp_path):
    parts = [(str(index), evaluate(CLIPS, shard=(index, 3))) for index in range(3)]
    with pytest.raises(DataError, match="hold all 3 pairs, got 2, without 'clip1'"):
        results.merge_results([parts[0], parts[2]])
    with pytest.raises(DataError, match="'clip0' must be in one shard only"):
        results.merge_results([parts[0], parts[1], ("again", parts[0][1])])
    other = evaluate(CLIPS, shard=(1, 3), recipes=("l1/unit",))
    with pytest.raises(DataError, match="metrics of other must be those of 0"):
        results.merge_results([parts[0], ("other", other), parts[2]])
    results.write_partial(tmp_path, parts[0][1], {}, {})
    path = tmp_path / results.PARTIAL_FILE
    whole = path.read_text()
    for text in (whole[:-200], whole.replace('"model"', "3", 1), "{}", "[]"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"partial.json"):
            results.read_partial(tmp_path)
    path.write_text(whole)
    pictures = tmp_path / results.PICTURES_FILE
    pictures.write_bytes(pictures.read_bytes()[:-30])
    with pytest.raises(DataError, match="readable result"):
        results.read_partial(tmp_path)


def test_everything_is_compiled_once_for_all_pairs():
    count = 0

    class Counting(Halfway):
        def animate_frame(self, *arguments, **options):
            nonlocal count
            count += 1
            return super().animate_frame(*arguments, **options)

    evaluate(CLIPS, model=Counting())
    assert count == 1


def test_masks_are_used_when_every_clip_has_them_and_missed_when_asked_for():
    clips = noise_clips((3, 3), masks=True)
    found = evaluate(clips)
    assert [recipe.name for recipe in found.recipes] == [*RECONSTRUCTION, *MASKED]
    assert "move_source_by_silhouette" in found.values
    frames, mask = clips["clip0"].frames / 255.0, clips["clip0"].masks[1] > 0
    expected = np.abs(frames[1] - frames[0])[mask].mean() / 2
    second = np.abs(frames[2] - frames[0])[clips["clip0"].masks[2] > 0].mean() / 2
    np.testing.assert_allclose(
        # Sums of some 450 float32 over their number, and differences of near equal ones.
        found.values["model"]["l1/masked-gt"][0],
        (expected + second) / 2,
        rtol=2e-6,
    )
    mixed = clips | {"clip1": clips["clip1"]._replace(masks=None)}
    assert [recipe.name for recipe in evaluate(mixed).recipes] == list(RECONSTRUCTION)
    with pytest.raises(ArgumentError, match=r"hold a mask of every frame.*record field `mask`"):
        evaluate(mixed, recipes=("l1/masked-gt",))


def test_pairs_without_a_visible_region_are_counted_and_left_out():
    clips = noise_clips((3, 3), masks=True)
    clips["clip0"] = clips["clip0"]._replace(masks=np.zeros((3, 16, 16), np.uint8))
    edge = np.zeros((3, 16, 16), np.uint8)
    edge[:, :3] = 1  # no 11 x 11 window is centred there
    clips["clip1"] = clips["clip1"]._replace(masks=edge)
    found = evaluate(clips)
    assert np.isnan(found.values["model"]["l1/masked-gt"][0])
    assert np.isnan(found.values["model"]["ssim/masked-gt"]).all()
    assert np.isfinite(found.values["model"]["l1/unit"]).all()
    table = report.as_markdown(found, {})
    assert "(1 of 2 pairs)" in table and "– (0 of 2 pairs)" in table
    report.as_json(found, {})


def test_across_identities_there_is_no_error_and_the_table_says_so():
    found = evaluate(CLIPS, "cross_identity")
    assert not found.recipes and not found.values and found.gallery
    table = report.as_markdown(found, {})
    assert "No truth exists" in table and "| model" not in table
    document = report.as_json(found, {})
    assert document["rows"] == {} and "No truth" in document["note"]
    assert list(found.gallery[0].images) == ["source", "driving", "model"]
    with pytest.raises(ArgumentError, match="have a truth to compare with"):
        evaluate(CLIPS, "cross_identity", recipes=("l1/unit",))


def test_exact_truth_across_identities_makes_the_errors_appear():
    clips = noise_clips((3, 3, 3, 3), masks=True)

    def image(pair, number):
        source = clips[pair.source_clip].frames[pair.source_frame]
        driving = clips[pair.driving_clip].frames[number]
        return (0.5 * source + 0.5 * driving).astype(np.float32) / 255

    truth = ExactTruth(image, lambda pair, number: clips[pair.driving_clip].masks[number], "toys")
    found = evaluate(clips, "cross_identity", truth=truth)
    assert [recipe.name for recipe in found.recipes] == [*RECONSTRUCTION, *MASKED]
    # The toy model is exactly this truth; half of a difference stands between it and the copies.
    assert max(found.values["model"]["l1/unit"]) < 1e-6
    pair = found.pairs[0]
    expected = np.mean(
        [
            np.abs(image(pair, i) - clips[pair.driving_clip].frames[i] / 255.0).mean()
            for i in pair.driving_frames
        ]
    )
    np.testing.assert_allclose(found.values["copy_driving"]["l1/unit"][0], expected, rtol=1e-5)
    # Here copying the driving frame knows nothing: it competes with the other trivial answers.
    assert found.oracle == "" and "truth: toys" in report.as_markdown(found, {})
    assert report.gain_over_trivial(found, found.recipes[0]).low > 0
    assert "truth" in found.gallery[0].images
    with pytest.raises(ArgumentError, match="across identities only"):
        evaluate(clips, truth=truth)


def test_relative_motion_starts_at_the_frame_most_like_the_source():
    # Keypoints are corner colours: the triangle of frame 2 has the source's shape, moved by 0.2.
    def frame(corners):
        image = np.zeros((12, 12, 3), np.float32)
        image[0, 0, :2], image[0, -1, :2], image[-1, 0, :2] = corners
        return image

    face = np.array([[0.1, 0.1], [0.5, 0.1], [0.1, 0.6]])
    other = np.array([[0.1, 0.1], [0.2, 0.5], [0.5, 0.6]])
    clips = {
        "a": Clip("a", [frame(face)], "ann"),
        "b": Clip("b", [frame(other), frame(other + 0.1), frame(face + 0.2)], "bob"),
    }
    found = evaluate(clips, "cross_identity_relative", model=Shifted(12), gallery_pairs=9)
    index = found.pair_names.index("a-000000--b")
    assert found.initial_frames["model"][index] == 2
    row = next(row for row in found.gallery if row.position == found.positions[index])
    assert row.frame == 1
    # Source keypoints plus the movement since frame 2: their mean.
    expected = (face + (other + 0.1) - (face + 0.2)).mean()
    np.testing.assert_allclose(row.images["model"] / 255.0, expected, atol=0.5 / 255 + 1e-6)
    rows = report.as_json(found, {})["pairs"]
    assert "initial_frame/model" in rows[index]
    assert {row["initial_frame_by"] for row in rows} == {"keypoints"}
    pairs = [dataclasses.replace(pair, initial_frame=0) for pair in found.pair_list.pairs]
    pair_list = PairList(found.pair_list.protocol, tuple(pairs))
    known = evaluate(clips, "cross_identity_relative", model=Shifted(12), pair_list=pair_list)
    assert set(known.initial_frames["model"]) == {0}
    assert report.as_json(known, {})["pairs"][index]["initial_frame_by"] == "landmarks"


def test_runner_refuses_what_it_cannot_score():
    with pytest.raises(DataError, match="at least 2 frames"):
        build_pairs(protocol("reconstruction"), noise_clips((1, 1)).values())
    with pytest.raises(ArgumentError, match="16 x 16 pixels, the model's resolution"):
        evaluate(noise_clips((3,), size=20), model=Halfway(16))
    clips = noise_clips((3,))
    ragged = [clips["clip0"].frames[0], np.zeros((12, 12, 3), np.uint8)]
    with pytest.raises(DataError, match=r"pair 'clip0'.*\(16, 16, 3\)"):
        evaluate({"clip0": clips["clip0"]._replace(frames=ragged)})

    class Broken(Answer):
        def bind(self, task):
            return lambda batch: np.full(batch.frames.shape, np.nan, np.float32)

    with pytest.raises(DataError, match="'broken' for pair 'clip0' must be finite"):
        evaluate(clips, system={"broken": Broken()})
    with pytest.raises(ArgumentError, match="differ from the trivial rows"):
        evaluate(clips, system={"copy_source": Broken()})
