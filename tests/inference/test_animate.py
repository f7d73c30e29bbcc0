"""Files in, files out: the official definition of stitching, panels, sound, and what is refused."""

import dataclasses

import av
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, MediaError
from talking_heads_jax.inference import animate as animate_module
from talking_heads_jax.inference.animate import (
    AnimateOptions,
    FrameAnimator,
    animate_clip,
    animate_files,
)
from talking_heads_jax.inference.overlay import draw_keypoints
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.models.registry import build_model

from .conftest import SIDE, TurnableHead, moving_frames, write_clip

FRAMES = 9
BOXES = dict.fromkeys(("source_box", "driving_box"), (0.0, 0.0, 9.0, 9.0))


@pytest.fixture
def portrait(tmp_path):
    path = tmp_path / "portrait.png"
    write_image(path, moving_frames(1, seed=5)[0])
    return path


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", moving_frames(FRAMES), fps=30)


def _pictures(folder):
    return [read_image(path) for path in sorted(folder.iterdir())]


@pytest.fixture
def animate(head, variables, portrait, clip, tmp_path):
    """Runs `animate_clip` to a new folder of pictures, quietly."""

    def run(source=portrait, driving=clip, model=head, variables=variables, **options):
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        result = animate_clip(
            model,
            variables,
            source,
            driving,
            folder,
            options=AnimateOptions(**options),
            log=lambda text: None,
        )
        return result, _pictures(folder)

    return run


@pytest.mark.parametrize("rest", [0, 4, FRAMES - 1])
def test_animate_clip_equals_the_stitched_halves(head, variables, portrait, clip, animate, rest):
    """forward = video[rest:], backward = video[:rest + 1] reversed, joined without the double."""
    video = list(VideoReader(clip))

    def half(frames):
        animator = FrameAnimator(head, variables, read_image(portrait))
        animator.set_initial(frames[0])
        return [frame.prediction for frame in animator.stream(iter(frames))]

    forward, backward = half(video[rest:]), half(video[: rest + 1][::-1])
    expected = backward[::-1] + forward[1:]
    result, pictures = animate(best_frame=rest, adapt_scale=True)
    assert result.best_frame == rest
    assert result.frames == len(pictures) == len(expected) == FRAMES
    for got, want in zip(pictures, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_animate_clip_writes_a_video_like_the_pictures(
    head, variables, portrait, clip, animate, tmp_path
):
    _, pictures = animate()
    output = tmp_path / "out.mp4"
    result = animate_clip(
        head, variables, portrait, clip, output, options=AnimateOptions(), log=lambda text: None
    )
    reader = VideoReader(output)
    assert result.fps == float(reader.fps) == 30
    decoded = list(reader)
    assert len(decoded) == FRAMES
    for got, want in zip(decoded, pictures, strict=True):
        # Lossy H.264 with subsampled colour on a 16 px picture: the mean is what it keeps.
        assert np.abs(got.astype(float) - want).mean() < 6


def test_animate_clip_is_deterministic(animate):
    for left, right in zip(animate()[1], animate()[1], strict=True):
        np.testing.assert_array_equal(left, right)


def test_animate_clip_batches_equal_single_frames(animate):
    _, one = animate()
    _, four = animate(batch_size=4)
    assert len(one) == len(four)
    for left, right in zip(one, four, strict=True):
        # A value beside a rounding boundary may fall on either side.
        assert np.abs(left.astype(int) - right.astype(int)).max() <= 1


def test_animate_clip_absolute_ignores_rest_frame_and_scale(animate):
    result, plain = animate(relative=False)
    assert result.best_frame is None and result.scale == 1.0
    _, other = animate(relative=False, best_frame=3, adapt_scale=True)
    for left, right in zip(plain, other, strict=True):
        np.testing.assert_array_equal(left, right)


def test_animate_clip_side_by_side_shows_source_driving_prediction(portrait, clip, animate):
    _, alone = animate()
    _, panels = animate(side_by_side=True)
    driving = list(VideoReader(clip))
    for index, picture in enumerate(panels):
        assert picture.shape == (SIDE, 3 * SIDE, 3)
        np.testing.assert_array_equal(picture[:, :SIDE], read_image(portrait))
        np.testing.assert_array_equal(picture[:, SIDE : 2 * SIDE], driving[index])
        np.testing.assert_array_equal(picture[:, 2 * SIDE :], alone[index])


def test_animate_clip_draws_each_panel_its_own_keypoints(head, variables, portrait, clip, animate):
    _, panels = animate(side_by_side=True, keypoints=True)
    animator = FrameAnimator(head, variables, read_image(portrait))
    animator.set_initial(next(iter(VideoReader(clip))), adapt_scale=False)
    frame = list(animator.stream(iter(VideoReader(clip))))[4]
    for panel, (image, motion) in enumerate(
        [
            (frame.source, frame.source_motion),
            (frame.driving, frame.driving_motion),
            (frame.prediction, frame.motion),
        ]
    ):
        expected = draw_keypoints(image, motion.value)
        np.testing.assert_array_equal(panels[4][:, panel * SIDE : (panel + 1) * SIDE], expected)


def test_animate_clip_takes_a_source_video_frame_by_frame_and_holds_its_end(
    head, variables, clip, animate, tmp_path
):
    source = write_clip(tmp_path / "source.mp4", moving_frames(4, seed=8))
    sources = list(VideoReader(source))
    _, pictures = animate(source=source, side_by_side=True, batch_size=2)
    for index, picture in enumerate(pictures):
        np.testing.assert_array_equal(picture[:, :SIDE], sources[min(index, 3)])


def test_animate_clip_crops_and_resizes_and_says_so(animate, tmp_path):
    wide = write_clip(tmp_path / "wide.mp4", moving_frames(3, (32, 64)))
    large = tmp_path / "large.png"
    write_image(large, moving_frames(1, (48, 48))[0])
    result, pictures = animate(source=large, driving=wide)
    assert pictures[0].shape == (SIDE, SIDE, 3)
    assert any("driving: 64x32 is not square" in note for note in result.notes)
    assert any("source: resized from 48x48" in note for note in result.notes)


def test_animate_clip_finds_the_best_frame_from_landmarks(animate, tmp_path):
    face = np.random.default_rng(0).uniform(0, 100, (68, 2))
    driving = face + np.random.default_rng(1).normal(0, 5, (FRAMES, 68, 2))
    driving[6] = 2 * face + 3
    driving[2] = np.nan
    np.savez(tmp_path / "source.npz", landmarks68_px=face)
    np.savez(tmp_path / "driving.npz", landmarks68_px=driving)
    given = {
        "source_landmarks": tmp_path / "source.npz",
        "driving_landmarks": tmp_path / "driving.npz",
    }
    result, pictures = animate(**given)
    assert result.best_frame == 6
    for left, right in zip(pictures, animate(best_frame=6)[1], strict=True):
        np.testing.assert_array_equal(left, right)
    assert animate(**given, best_frame="off")[0].best_frame == 0


def test_the_best_frame_is_found_in_tables_of_shares_of_the_frame(animate, tmp_path):
    """Shares need the size of either file's frames; wide frames would be squeezed without it."""
    face = np.random.default_rng(0).uniform(20, 180, (478, 2))
    driving = np.stack([face * (1.0 + 0.1 * (i - 2), 1.0) for i in range(4)])  # alike: number 2
    source = tmp_path / "large.png"
    write_image(source, moving_frames(1, (200, 200))[0])
    wide = write_clip(tmp_path / "wide.mp4", moving_frames(4, (200, 400)))
    for name, points, width in (("source", face[None], 200), ("driving", driving, 400)):
        header = ["frame", *(f"{axis}_{i}" for axis in "xy" for i in range(478))]
        shares = points / (width, 200)
        lines = [[i, *row[:, 0], *row[:, 1]] for i, row in enumerate(shares)]
        lines = [",".join(map(str, line)) for line in (header, *lines)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    result, _ = animate(
        source=source,
        driving=wide,
        source_landmarks=tmp_path / "source.csv",
        driving_landmarks=tmp_path / "driving.csv",
    )
    assert result.best_frame == 2


def test_animate_clip_without_landmarks_starts_at_the_first_frame_and_says_so(animate):
    result, _ = animate()
    assert result.best_frame == 0
    assert any("no landmarks of the source and the driving clip" in note for note in result.notes)
    assert not any("no landmarks" in note for note in animate(best_frame="off")[0].notes)


def test_animate_clip_applies_the_pose_to_the_source(animate):
    head = TurnableHead()
    variables = head.init(None) | {"pose_editor": {"params": {"gain": np.float32(1.0)}}}
    _, straight = animate(model=head, variables=variables)
    _, turned = animate(model=head, variables=variables, pose=(20.0, 0.0, 0.0))
    assert np.abs(straight[0].astype(int) - turned[0]).max() > 5


def _with_sound(path, frames):
    """An mp4 with a tone, written with PyAV alone."""
    rate = 8000
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        times = np.arange(rate * len(frames) // 25) / rate
        tone = (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]
        samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        samples.sample_rate = rate
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("audio", [True, False])
def test_animate_clip_carries_sound_over_when_asked(head, variables, portrait, tmp_path, audio):
    driving = _with_sound(tmp_path / "sound.mp4", moving_frames(10))
    output = tmp_path / "out.mp4"
    options = AnimateOptions(audio=audio)
    animate_clip(head, variables, portrait, driving, output, options=options, log=lambda text: None)
    assert VideoReader(output).has_audio == audio


def test_animate_clip_leaves_an_old_file_alone_when_it_fails(
    head, variables, portrait, clip, tmp_path, monkeypatch
):
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(MediaError, match="frame number 99"):
        animate_clip(
            head, variables, portrait, clip, output,
            options=AnimateOptions(best_frame=99), log=lambda text: None,
        )  # fmt: skip

    def fail(frame, options):
        raise MediaError("broken half way")

    monkeypatch.setattr(animate_module, "compose_frame", fail)
    with pytest.raises(MediaError, match="half way"):
        animate_clip(
            head, variables, portrait, clip, output,
            options=AnimateOptions(), log=lambda text: None,
        )  # fmt: skip
    assert output.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"best_frame": -1}, "best frame"),
        ({"best_frame": "first"}, "best frame"),
        ({"best_frame": True}, "best frame"),
        ({"source_landmarks": "a.npz", "crop": "centre"}, "landmarks must be given of both"),
        ({"crop": "face"}, "crop must be"),
        ({"recipe": "close"}, "recipe must be"),
        ({"source_box": (4.0, 4.0, 4.0, 8.0)}, "box must have x0 < x1"),
        ({"paste_back": True, "side_by_side": True}, "paste back must stand alone"),
        ({"pose": (1.0, 0.0, 0.0), "relative": False}, "pose must be combined"),
        ({"batch_size": 0}, "batch size"),
        ({"pose": (1.0, 0.0, 0.0)}, "pose editor"),
        ({"crop": "none", "detector": "dlib"}, "detector must be used with a file whose face"),
        ({"crop": "none", "recipe": "gdpw_256"}, "recipe must be used with crop auto"),
        ({"crop": "centre", **BOXES}, "crop must be used with a file without a box"),
        ({"recipe": "gdpw_256", **BOXES}, "recipe must be used with a file without a box"),
    ],
)
def test_animate_clip_refuses_options_that_make_no_sense(animate, options, message):
    with pytest.raises(ArgumentError, match=message):
        animate(**options)


@pytest.mark.parametrize("options", [{"detector": "centre"}, {"recipe": "fomm_clip_box"}])
def test_animate_clip_takes_what_one_of_the_files_uses(animate, options):
    box = {"driving_box": (0.0, 0.0, float(SIDE), float(SIDE))}
    assert animate(**box, **options)[0].frames == FRAMES


def test_batches_are_no_larger_than_the_clip(animate, monkeypatch):
    seen = []
    stream = FrameAnimator.stream

    def watched(self, *arguments, **keywords):
        seen.append(self.batch_size)
        return stream(self, *arguments, **keywords)

    monkeypatch.setattr(FrameAnimator, "stream", watched)
    assert animate(batch_size=64)[0].frames == FRAMES
    assert seen == [FRAMES]


def test_animate_clip_refuses_a_source_video_with_pose(animate, clip):
    head = TurnableHead()
    variables = head.init(None) | {"pose_editor": {"params": {"gain": np.float32(1.0)}}}
    with pytest.raises(ArgumentError, match="source must be an image"):
        animate(source=clip, model=head, variables=variables, pose=(1.0, 0.0, 0.0))


SMALL = {
    "resolution": 64,
    "num_keypoints": 4,
    "keypoint_detector": {"block_expansion": 4, "max_features": 8, "num_blocks": 2},
    "generator": {
        "block_expansion": 4,
        "max_features": 8,
        "dense_motion_options": {"block_expansion": 4, "max_features": 8, "num_blocks": 2},
    },
}

SMALL_VOLUME = {
    "volume_options": {"channels": 4, "depth": 4, "hidden_features": 8},
    "spade_options": {"segmentation_features": 8, "block_features": [8, 8, 8, 8]},
    "image_head_features": 8,
}


@pytest.fixture(scope="module", params=["fomm", "fnevr"])
def small_checkpoint(request, tmp_path_factory):
    """A saved reduced model with fresh weights of its inference networks."""
    import jax

    from talking_heads_jax.checkpoints import save_model

    arguments = dict(SMALL)
    if request.param == "fnevr":
        arguments["generator"] = SMALL["generator"] | SMALL_VOLUME
    model = build_model(request.param, **arguments)
    # Plain numpy numbers: compiling the initialisation would cost more than the tests.
    shapes = jax.eval_shape(
        lambda key: model.init(key, model.inference_networks), jax.random.key(0)
    )
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        """He kernels, statistics as fresh, identity Jacobians: a well-conditioned network."""
        name, noise = jax.tree_util.keystr(path), rng.standard_normal(leaf.shape, np.float32)
        if "['jacobian']" in name:
            identity = np.tile(np.float32([1, 0, 0, 1]), leaf.shape[-1] // 4)
            return identity if name.endswith("['bias']") else 0 * noise
        if name.endswith("['kernel']"):
            return noise * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
        positive = name.endswith(("['scale']", "['var']"))
        return np.ones_like(noise) if positive else np.float32(0.1) * noise

    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    folder = tmp_path_factory.mktemp("checkpoints") / request.param
    save_model(folder, model, variables)
    return folder, model, variables


def test_animate_files_equals_animate_clip_of_the_saved_model(small_checkpoint, tmp_path):
    folder, model, variables = small_checkpoint
    portrait = tmp_path / "portrait.png"
    write_image(portrait, moving_frames(1, (80, 64), seed=5)[0])
    clip = write_clip(tmp_path / "clip.mp4", moving_frames(4, (64, 96)))
    lines = []
    result = animate_files(folder, portrait, clip, tmp_path / "out", log=lines.append)
    assert np.std(_pictures(tmp_path / "out")) > 3  # not a flat grey: there is something to compare
    assert result.frames == 4 and lines[-1].endswith("4 frames at 25 frames/s")
    animate_clip(
        model, variables, portrait, clip, tmp_path / "again",
        options=AnimateOptions(), log=lambda text: None,
    )  # fmt: skip
    for left, right in zip(_pictures(tmp_path / "out"), _pictures(tmp_path / "again"), strict=True):
        np.testing.assert_array_equal(left, right)

    plain = dataclasses.replace(AnimateOptions(), plain=True)
    animate_files(folder, portrait, clip, tmp_path / "plain", options=plain, log=lambda text: None)
    for left, right in zip(_pictures(tmp_path / "out"), _pictures(tmp_path / "plain"), strict=True):
        # The savings are exact up to float32 rounding: at most one of 255 levels.
        assert np.abs(left.astype(int) - right.astype(int)).max() <= 1

    with pytest.raises(Exception, match="pose"):
        animate_files(
            folder, portrait, clip, tmp_path / "posed",
            options=AnimateOptions(pose=(10.0, 0.0, 0.0)), log=lambda text: None,
        )  # fmt: skip
    assert not (tmp_path / "posed").exists()


def test_animate_files_on_shipped_clips(small_checkpoint, shared_folder, tmp_path):
    folder, _, _ = small_checkpoint
    media = shared_folder / "media"
    options = AnimateOptions(
        adapt_scale=True,
        source_landmarks=media / "still_s3_landmarks.npz",
        driving_landmarks=media / "d0_landmarks.npz",
        batch_size=8,
    )
    result = animate_files(
        folder, media / "still_s3_256.png", media / "d0_256.mp4", tmp_path / "out.mp4",
        options=options, log=lambda text: None,
    )  # fmt: skip
    reader = VideoReader(tmp_path / "out.mp4")
    driving = VideoReader(media / "d0_256.mp4")
    assert result.frames == sum(1 for _ in reader) == sum(1 for _ in driving) == 78
    assert 0 <= result.best_frame < 78
    assert reader.fps == driving.fps and reader.has_audio == driving.has_audio
