"""`animate` with a mesh-driven system: source's shape, driver's motion, in the source's picture."""

import dataclasses

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.inference import animate_mesh, face_tracks
from talking_heads_jax.inference.animate import AnimateOptions, MeshAnimator, animate_clip
from talking_heads_jax.inference.clips import fit_frame
from talking_heads_jax.inference.framing import Framing
from talking_heads_jax.inference.mesh_motion import motion_filter, smooth_motion
from talking_heads_jax.inference.mesh_placement import find_placement
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.tracking.clip_boxes import landmark_box
from talking_heads_jax.tracking.fit_result import fit_landmarks_px
from talking_heads_jax.tracking.motion_file import save_motion
from talking_heads_jax.tracking.track import PERSPECTIVE
from talking_heads_jax.tracking.tracker import fit_of

from .conftest import BrightnessHead, moving_frames, write_clip
from .toy_meshes import fitted_track, head_px, posed_px

FRAMES, SOURCE_SIZE, DRIVING_SIZE = 5, (40, 48), (64, 50)
# What the model of 32 px sees with crop='centre': left, top, side.
SOURCE_SQUARE, DRIVING_SQUARE = (4, 0, 40), (0, 7, 50)


@dataclasses.dataclass
class Files:
    """A portrait and a clip with their motion files."""

    folder: object
    face: object
    track: object

    def path(self, name):
        return self.folder / name


@pytest.fixture(scope="module")
def files(procedural, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    face = fitted_track(procedural, 1, seed=1, size=SOURCE_SIZE, scale_px=1.3)
    track = fitted_track(procedural, FRAMES, seed=2, size=DRIVING_SIZE, scale_px=1.6)
    save_motion(folder / "face.npz", face)
    save_motion(folder / "motion.npz", track)
    write_image(folder / "portrait.png", moving_frames(1, SOURCE_SIZE, seed=3)[0])
    write_image(folder / "still.png", moving_frames(1, DRIVING_SIZE, seed=4)[0])
    write_clip(folder / "clip.mp4", moving_frames(FRAMES, DRIVING_SIZE), fps=20)
    return Files(folder, face, track)


@pytest.fixture
def animate(gdpw, files, tmp_path):
    """Runs `animate_clip` to a new folder of pictures, with the stored tracks unless told."""

    def run(driving="motion.npz", source="portrait.png", **options):
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        options = {"source_motion": files.path("face.npz"), "crop": "centre"} | options
        result = animate_clip(
            *gdpw, files.path(source), files.path(driving), folder,
            options=AnimateOptions(**options), log=lambda text: None,
        )  # fmt: skip
        return result, [read_image(path) for path in sorted(folder.iterdir())]

    return run


def _in_square(pixels, square):
    """Vertices or points in the 32 px of a centre square."""
    left, top, side = square
    moved = np.array(pixels, np.float64)
    moved[..., 0] -= left
    moved[..., 1] -= top
    return moved * 32 / side


def _expected(gdpw, procedural, files, track, *, at_source):
    """The frames from the definitions: source's shape, driver's coefficients, the crops' maps."""
    portrait = fit_frame(read_image(files.path("portrait.png")), 32)
    own = _in_square(posed_px(procedural, files.face.shape_coeffs, files.face), SOURCE_SQUARE)
    meshes = _in_square(posed_px(procedural, files.face.shape_coeffs, track), DRIVING_SQUARE)
    if at_source:
        shape = files.face.shape_coeffs
        heads = [head_px(procedural, shape, each) for each in (track, files.face)]
        there = np.median(_in_square(heads[0], DRIVING_SQUARE), axis=0)
        here = _in_square(heads[1][0], SOURCE_SQUARE)
        size_there = np.median(track.scale_px) * 32 / DRIVING_SQUARE[2]
        scale = files.face.scale_px[0] * 32 / SOURCE_SQUARE[2] / size_there
        meshes *= scale
        meshes[..., :2] += here - scale * there
    animator = MeshAnimator(*gdpw, batch_size=2)
    animator.set_source(portrait, own[0])
    return list(animator.frames(meshes.astype(np.float32)))


def _assert_same(pictures, expected):
    assert len(pictures) == len(expected)
    for got, want in zip(pictures, expected, strict=True):
        # Float32 meshes: a value beside a rounding boundary may fall on either side, and an edge
        # pixel of the mesh to either surface.
        differ = np.abs(got.astype(int) - want).max(-1) > 1
        assert differ.mean() < 0.01


@pytest.mark.parametrize("placement, smooth", [(None, None), ("driving", "none")])
def test_frames_are_the_sources_shape_in_the_drivers_motion(
    gdpw, procedural, files, animate, placement, smooth
):
    result, pictures = animate(placement=placement, smooth=smooth, batch_size=2)
    track = smooth_motion(files.track, smooth or "official")
    expected = _expected(gdpw, procedural, files, track, at_source=placement is None)
    _assert_same(pictures, expected)
    other = _expected(gdpw, procedural, files, track, at_source=placement is not None)
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(pictures, other, strict=True)) > 10
    assert (result.frames, result.fps, result.best_frame) == (FRAMES, 20.0, None)
    assert any(f"{result.scale:.2f} times as large" in note for note in result.notes)


def test_shoulders_may_stay_as_the_sources(procedural, files, animate, monkeypatch):
    meshes = []

    class Watched(MeshAnimator):
        def frames(self, vertices):
            meshes.append(np.stack(list(vertices)))
            return iter(np.zeros((1, 32, 32, 3), np.uint8))

    monkeypatch.setattr(animate_mesh, "MeshAnimator", Watched)
    for shoulders in (None, "stay"):
        animate(shoulders=shoulders)
    turned, stayed = meshes
    weights = np.asarray(procedural.arrays["weights"])
    torso, skull = (
        weights[:, procedural.joint_names.index(name)] > 0.999 for name in ("root", "neck")
    )
    # The placement goes by neck and eyes, which are where they were. A thousandth may be torso's.
    np.testing.assert_allclose(stayed[:, skull, :2], turned[:, skull, :2], atol=0.01)
    assert np.abs(stayed - turned)[:, torso, :2].max() > 0.5
    for mesh in stayed:  # turned as in the first frame, in the size of its own
        across = np.ptp(mesh[torso], axis=0) / np.ptp(stayed[0][torso], axis=0)
        np.testing.assert_allclose(across, across[0], rtol=1e-3)


def test_a_video_with_its_motion_file_shows_panels_and_gives_the_same_frames(files, animate):
    _, alone = animate(batch_size=2)
    motion = {"driving_motion": files.path("motion.npz")}
    _, panels = animate("clip.mp4", side_by_side=True, batch_size=2, **motion)
    driving = list(VideoReader(files.path("clip.mp4")))
    portrait = fit_frame(read_image(files.path("portrait.png")), 32)
    for index, picture in enumerate(panels):
        np.testing.assert_array_equal(picture[:, :32], portrait)
        np.testing.assert_array_equal(picture[:, 32:64], fit_frame(driving[index], 32))
        np.testing.assert_array_equal(picture[:, 64:], alone[index])


def test_results_are_pasted_back_into_the_source(files, animate):
    _, pictures = animate(paste_back=True, batch_size=2)
    frame = read_image(files.path("portrait.png"))
    left, _, side = SOURCE_SQUARE
    for picture in pictures:
        assert picture.shape == frame.shape
        np.testing.assert_array_equal(picture[:, :left], frame[:, :left])
        assert np.abs(picture.astype(int) - frame)[:, left : left + side].max() > 5


def test_frames_without_a_face_repeat_the_one_before(files, animate, tmp_path):
    times = np.array([0.0, 0.05, 0.1, 0.3, 0.35])
    gaps = dataclasses.replace(files.track, angles=files.track.angles.copy(), time_s=times)
    gaps.angles[2] = np.nan
    save_motion(tmp_path / "gaps.npz", gaps)
    result, pictures = animate(tmp_path / "gaps.npz", smooth="none", batch_size=2)
    np.testing.assert_array_equal(pictures[2], pictures[1])
    assert np.abs(pictures[3].astype(int) - pictures[2]).max() > 10
    assert "driving: 1 of 5 frames have no face: the last pose is held" in result.notes
    assert "driving: frames at uneven times, written evenly at 20 a second" in result.notes


@pytest.mark.parametrize("camera", ["weak_perspective", PERSPECTIVE])
def test_the_median_head_is_laid_over_the_sources(procedural, camera):
    """Neck, eyes and scale, in either camera and in crops of any size."""
    fields = {}
    if camera == PERSPECTIVE:
        depth = np.linspace(50, 60, 5, dtype=np.float32)
        fields = {"camera": camera, "focal_px": 80.0, "depth_cm": depth}
    face = fitted_track(procedural, 1, seed=1)
    track = fitted_track(procedural, 5, seed=2, **fields)
    boxes = np.array([[3.0, 4.0, 23.0, 24.0], [-8.0, 0.0, 32.0, 40.0]])  # zooms of 1.6 and 0.8
    crops = [Framing(32, box) for box in boxes]

    def place(method, *faces):
        (source, source_crop), (driving, driving_crop) = faces
        return find_placement(method, procedural, source, source_crop, driving, driving_crop)

    placement = place("source", (face, crops[0]), (track, crops[1]))
    size = np.median(track.scale_px) * 0.8 * placement.scale
    assert size == pytest.approx(face.scale_px[0] * 1.6, rel=1e-6)
    heads = head_px(procedural, face.shape_coeffs, track) - boxes[1, :2]
    moved = placement.place(np.append(0.8 * np.median(heads, axis=0), -2.0)[None])[0]
    here = (head_px(procedural, face.shape_coeffs, face)[0] - boxes[0, :2]) * 1.6
    np.testing.assert_allclose(moved[:2], here, atol=1e-4)
    assert moved[2] == pytest.approx(-2 * placement.scale, rel=1e-6)
    same = place("source", (face, crops[0]), (face, crops[0]))
    assert same.scale == 1 and np.abs(same.shift_px).max() < 1e-12
    assert place("driving", (face, crops[0]), (track, crops[1])).scale == 1
    with pytest.raises(ArgumentError, match="placement must be"):
        place("middle", (face, crops[0]), (track, crops[1]))


def test_crops_that_follow_the_face_are_smoothed_as_the_camera_is():
    boxes = np.arange(24.0).reshape(6, 4) + np.array([0, 0, 20, 20])
    path = Framing(32, boxes).smoothed(lambda rows: rows + np.array([1, 2, 0, 0]))
    np.testing.assert_allclose(path.alignment(3).box_px, boxes[3] + [1, 2, 1, 2])
    np.testing.assert_allclose(Framing(32, boxes[0]).smoothed(None).alignment(9).box_px, boxes[0])


def test_crops_stay_square_under_a_filter_that_depends_on_the_speed(procedural):
    track = fitted_track(procedural, 8)
    low = np.array([5.0, 9.0]) + np.arange(8)[:, None] ** 1.5 * [2.0, 0.3]  # faster to the side
    boxes = np.concatenate([low, low + np.linspace(20, 30, 8)[:, None]], axis=1)
    smooth = motion_filter(track, "one_euro")
    path = Framing(32, boxes).smoothed(lambda values: smooth(values, "box_px"))
    matrices = np.stack([path.alignment(row).matrix for row in range(8)])
    np.testing.assert_allclose(matrices[:, 0, 0], matrices[:, 1, 1], rtol=1e-6)
    assert np.abs(path.alignment(4).box_px - boxes[4]).max() > 0.01


def test_pictures_are_tracked_with_the_checkpoints_face_model(
    gdpw, procedural, files, animate, tmp_path, monkeypatch
):
    """What `track_file` is asked for, and that one landmark network serves both pictures."""
    asked = []

    def track_file(path, options, *, limits, model, landmarker):
        asked.append((path.name, options.landmarks, landmarker))
        assert options.morphable == "procedural" == model.name
        track = files.face if path.name == "portrait.png" else files.track.slice(0, 1)
        return dataclasses.replace(track, notes=(f"seen {path.name}",))

    monkeypatch.setattr(face_tracks, "track_file", track_file)
    result, pictures = animate(
        "still.png", source_motion=None, source_landmarks="a.csv", driving_landmarks="b.npz"
    )
    assert asked == [("portrait.png", "a.csv", None), ("still.png", "b.npz", None)]
    assert len(pictures) == 1 and "driving: seen still.png" in result.notes
    motions = {"driving_motion": tmp_path / "still.npz"}
    save_motion(motions["driving_motion"], files.track.slice(0, 1))
    said = []
    options = AnimateOptions(source_motion=files.path("face.npz"), crop="centre", **motions)
    pair = files.path("portrait.png"), files.path("still.png")
    animate_clip(*gdpw, *pair, tmp_path / "one.png", options=options, log=said.append)
    np.testing.assert_array_equal(read_image(tmp_path / "one.png"), pictures[0])
    assert said[-1] == f"{tmp_path / 'one.png'}: 1 frame"
    with pytest.raises(ArgumentError, match=r"driving must have landmarks.*--driving-landmarks"):
        animate("clip.mp4")
    network = object()
    monkeypatch.setattr(face_tracks, "find_landmarker", lambda name: network)
    animate("still.png", source_motion=None)
    assert asked[2:] == [("portrait.png", None, network), ("still.png", None, network)]


def test_a_portrait_driven_by_itself_keeps_its_mesh(gdpw, procedural, files, tmp_path, monkeypatch):
    """Landmarks, fit and crop about the face, of a picture that is both source and driver."""
    face = dataclasses.replace(files.face, scale_px=np.float32([1.6]))
    points = fit_landmarks_px(procedural, fit_of(face))
    np.savez(tmp_path / "points.npz", landmarks68_px=points)
    meshes = []

    class Watched(MeshAnimator):
        def set_source(self, image, vertices):
            meshes.append(vertices)
            super().set_source(image, vertices)

        def frames(self, vertices):
            meshes.extend(vertices)
            return super().frames(meshes[1:])

    monkeypatch.setattr(animate_mesh, "MeshAnimator", Watched)
    portrait, landmarks = files.path("portrait.png"), tmp_path / "points.npz"
    options = AnimateOptions(source_landmarks=landmarks, driving_landmarks=landmarks)
    result = animate_clip(
        *gdpw, portrait, portrait, tmp_path / "out", options=options, log=lambda text: None
    )
    assert result.frames == 1 and result.scale == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(meshes[0], meshes[1], atol=1e-4)
    box = landmark_box(points, *SOURCE_SIZE)  # the recipe of `prepare`
    expected = (points[0] - box[:2]) * 32 / (box[2] - box[0])
    got = np.asarray(procedural.landmarks68(meshes[0][None]))[0, :, :2]
    # Of a face 20 px wide; the fit's priors pull at it.
    assert np.sqrt(((got - expected) ** 2).sum(-1).mean()) < 0.5


def test_a_picture_without_a_face_is_refused(procedural, files, animate, monkeypatch):
    unfitted = dataclasses.replace(files.face, morphable="")
    monkeypatch.setattr(face_tracks, "track_file", lambda *_, **__: unfitted)
    with pytest.raises(ArgumentError, match=r"source portrait\.png must show a face"):
        animate(source_motion=None, source_landmarks="a.npz")


def test_motion_files_must_be_of_the_face_model_and_of_the_pictures(files, animate, tmp_path):
    def saved(name, track):
        save_motion(tmp_path / name, track)
        return tmp_path / name

    other = saved("other.npz", dataclasses.replace(files.track, morphable="ict"))
    with pytest.raises(ArgumentError, match=r"fitted with 'procedural'.* got 'ict'"):
        animate(other)
    with pytest.raises(ArgumentError, match=r"source motion file motion\.npz must be of portrait"):
        animate(source_motion=files.path("motion.npz"))
    wide = saved("wide.npz", dataclasses.replace(files.track, frame_size=(50, 64)))
    with pytest.raises(ArgumentError, match=r"of clip\.mp4, frames of 50x64, got 5 of 64x50"):
        animate("clip.mp4", driving_motion=wide)
    short = write_clip(tmp_path / "short.mp4", moving_frames(FRAMES - 2, DRIVING_SIZE), fps=20)
    with pytest.raises(ArgumentError, match=r"motion file must be of short\.mp4"):
        animate(short, driving_motion=files.path("motion.npz"), side_by_side=True)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"relative": True}, "relative motion must be used with a model that sees keypoints"),
        ({"adapt_scale": True}, "adapt_scale must be used with a model that sees keypoints"),
        ({"best_frame": "off"}, "best_frame must be used with a model that sees keypoints"),
        ({"keypoints": True}, "keypoints must be used with a model that sees keypoints"),
        ({"pose": (5.0, 0.0, 0.0)}, "talking-heads edit"),
        ({"side_by_side": True}, "side_by_side must be used with a driving video or image"),
        ({"driving_landmarks": "a.npz"}, "driving_landmarks must be used with a driving video"),
        ({"source_landmarks": "a.npz"}, "source_motion must stand in place of source_landmarks"),
        ({"source": "clip.mp4"}, "source must be an image with a mesh-driven model"),
        ({"smooth": "kalman"}, "smoothing of the motion must be"),
        ({"placement": "middle"}, "placement must be"),
        ({"shoulders": "shrug"}, "shoulders must be"),
        ({"detector": "dlib"}, "detector must be used with a file whose face has to be found"),
        ({"recipe": "gdpw_256"}, "recipe must be used with crop auto"),
        (
            {"source_box": (0, 0, 9, 9), "driving_box": (0, 0, 9, 9)},
            "crop must be used with a file without a box",
        ),
    ],
)
def test_options_without_meaning_are_refused(animate, options, message):
    with pytest.raises(ArgumentError, match=message):
        animate(**options)


@pytest.mark.parametrize(
    "name", ["source_motion", "driving_motion", "smooth", "placement", "shoulders"]
)
def test_systems_that_see_keypoints_refuse_the_options_of_meshes(files, tmp_path, name):
    head = BrightnessHead()
    with pytest.raises(ArgumentError, match=f"{name} must be used with a mesh-driven model"):
        animate_clip(
            head, head.init(None), files.path("portrait.png"), files.path("clip.mp4"),
            tmp_path / "out", options=AnimateOptions(**{name: "none"}), log=lambda text: None,
        )  # fmt: skip
