"""A portrait and edits in, pictures out: with a small GDPW and with a system that shows numbers."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, TalkingHeadsError
from talking_heads_jax.inference import mesh_animator
from talking_heads_jax.inference.edit_changes import parse_sweeps
from talking_heads_jax.inference.edit_portrait import EditOptions, Portrait, edit_portrait
from talking_heads_jax.inference.edit_sheet import frame_labels, mesh_panel, sheet
from talking_heads_jax.inference.framing import FramingOptions
from talking_heads_jax.inference.mesh_motion import track_vertices
from talking_heads_jax.media.image import read_image
from talking_heads_jax.media.video import VideoReader
from tests.inference.edit_states import SIDE, MovedHead, head, state

moved = MovedHead()


def portrait(side=32, **changes):
    rng = np.random.default_rng(3)
    image = rng.integers(60, 200, (side, side, 3), dtype=np.uint8)
    return Portrait(image, state(size=(side, side), **changes))


def edit(model, output, *, source=None, variables=None, **options):
    return edit_portrait(
        model,
        model.init(None) if variables is None else variables,
        source or portrait(),
        output,
        options=EditOptions(**options),
        driver=head(),
        log=lambda text: None,
    )


def colour(picture):
    return picture.reshape(-1, 3).mean(0)


def test_gdpw_shows_an_edit_where_the_mesh_moves(gdpw, tmp_path):
    model, variables = gdpw
    edits = {"frontal.png": ("head.yaw=0",), "turned.png": ("head.yaw=40",)}
    pictures = []
    for name, settings in edits.items():
        edit(model, tmp_path / name, variables=variables, presets=("frontal",), settings=settings)
        pictures.append(read_image(tmp_path / name).astype(int))
    assert pictures[0].shape == (32, 32, 3)
    changed = np.abs(pictures[1] - pictures[0]).max(-1) > 8
    assert changed[8:24, 8:24].mean() > 0.2  # the head


def test_pictures_videos_and_folders(tmp_path):
    sweep = ("camera.x=-0.25:0.25:3",)
    result = edit(moved, tmp_path / "out", sweeps=sweep, batch_size=2)
    assert result.frames == 3 and result.output == tmp_path / "out"
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"frame_{index:06d}.png" for index in range(3)]
    colours = [colour(read_image(tmp_path / "out" / name)) for name in files]
    # A shift by a quarter of 32 px is 8 px, and 20 px are the whole range of a colour.
    red = 255 * (0.5 + np.array([-8, 0, 8]) / 20)
    np.testing.assert_allclose(colours, np.stack([red, *[np.full(3, 127.5)] * 2], 1), atol=0.6)
    edit(moved, tmp_path / "clip.mp4", sweeps=sweep, fps=10, there_and_back=True)
    reader = VideoReader(tmp_path / "clip.mp4")
    assert float(reader.fps) == 10 and reader.size == (32, 32)
    found = [colour(frame)[0] for frame in reader]
    np.testing.assert_allclose(found, [*red, *red[1::-1]], atol=8)  # lossy colours
    edit(moved, tmp_path / "sheet.png", sweeps=sweep)
    assert read_image(tmp_path / "sheet.png").shape == (12 + 128, 3 * 128, 3)


@pytest.mark.parametrize("batch_size, sizes", [(8, [3]), (2, [2, 2])])
def test_batches_are_no_larger_than_the_clip(tmp_path, batch_size, sizes, monkeypatch):
    seen = []
    animate = mesh_animator._animate

    def watched(model, variables, encoding, vertices):
        seen.append(len(vertices))
        return animate(model, variables, encoding, vertices)

    monkeypatch.setattr(mesh_animator, "_animate", watched)
    sweep = ("camera.x=-0.25:0.25:3",)
    assert edit(moved, tmp_path / "out", sweeps=sweep, batch_size=batch_size).frames == 3
    assert seen == sizes


def test_side_by_side_shows_source_mesh_and_result(tmp_path):
    source = portrait()
    edit(moved, tmp_path / "a.png", source=source, settings=("camera.y=0.25",), side_by_side=True)
    shown = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(shown[:, :32], source.image)
    np.testing.assert_allclose(colour(shown[:, 64:])[1], 255 * 0.9, atol=0.6)
    mesh = track_vertices(source.track, head())[0] + [0, 8, 0]
    np.testing.assert_array_equal(shown[:, 32:64], mesh_panel(mesh, head().faces, 32))


def test_crops_carry_the_state_with_them_and_results_go_back(tmp_path):
    source = portrait(SIDE)
    box = FramingOptions(box=(16.0, 0.0, 80.0, 64.0))
    options = {"settings": ("camera.x=0.25",), "framing": box}
    edit(moved, tmp_path / "crop.png", source=source, **options)
    # A quarter of the crop, whatever its place and scale.
    np.testing.assert_allclose(colour(read_image(tmp_path / "crop.png"))[0], 255 * 0.9, atol=0.6)
    edit(moved, tmp_path / "whole.png", source=source, paste_back=True, **options)
    whole = read_image(tmp_path / "whole.png")
    assert whole.shape == source.image.shape
    np.testing.assert_array_equal(whole[64:], source.image[64:])
    np.testing.assert_array_equal(whole[:, :16], source.image[:, :16])
    np.testing.assert_allclose(whole[30, 48], [255 * 0.9, 127.5, 127.5], atol=1)


def test_sheets_begin_a_row_with_every_sweep():
    changes = parse_sweeps(["head.yaw=-10:10:2", "jaw+=0:8:3"])
    labels = frame_labels(changes, 5)
    assert labels[0] == ("head.yaw -10",) and labels[-1] == ("jaw += 8",)
    frames = [np.full((64, 64, 3), 10 * index, np.uint8) for index in range(5)]
    shown = sheet(frames, labels)
    assert shown.shape == (2 * (12 + 128), 3 * 128, 3)
    assert [shown[80, 64 + 128 * column, 0] for column in range(3)] == [0, 10, 255]
    assert [shown[220, 64 + 128 * column, 0] for column in range(3)] == [20, 30, 40]
    with pytest.raises(ArgumentError, match="at most 400 frames"):
        sheet(frames[:1] * 401, [()] * 401)


@pytest.mark.parametrize(
    "options, word",
    [
        ({}, "change something"),
        ({"settings": ("head.yaw=1",), "paste_back": True, "side_by_side": True}, "stand alone"),
        ({"settings": ("head.yaw=x",)}, "be a number"),
        ({"presets": ("front",)}, "frontal"),
        ({"settings": ("head.yaw=1",), "shoulders": "shrug"}, "turn"),
        ({"settings": ("head.yaw=1",), "fps": 0.0}, "fps"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options, word):
    with pytest.raises(TalkingHeadsError, match=word):
        EditOptions(**options)
