"""Classes, regions and sizes of face parsing; the network's numbers are checked by parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from talking_heads_jax.errors import ArgumentError, AssetNotFoundError
from talking_heads_jax.morphable.parts import PARTS, REGIONS
from talking_heads_jax.networks import face_parsing
from talking_heads_jax.networks.face_classes import (
    FACE_CLASSES,
    PARSING_REGIONS,
    classes_to_parts,
    region_mask,
    resize_classes,
    resize_for_parsing,
)

_ALL = np.arange(19, dtype=np.uint8)


def test_classes_have_the_documented_numbers():
    numbers = {name: FACE_CLASSES.index(name) for name in ("skin", "glasses", "nose", "mouth")}
    assert numbers == {"skin": 1, "glasses": 6, "nose": 10, "mouth": 11}
    assert len(FACE_CLASSES) == 19 and FACE_CLASSES[-5:] == (
        "neck", "necklace", "cloth", "hair", "hat",
    )  # fmt: skip


def test_regions_are_the_documented_unions():
    for region, numbers in {
        "foreground": range(1, 19),
        "face": range(1, 14),
        "mouth": (11, 12, 13),
        "eyes": (4, 5),
        "hair": (17, 18),
    }.items():
        np.testing.assert_array_equal(np.flatnonzero(region_mask(_ALL, region)), list(numbers))
    assert set(PARSING_REGIONS) == {"foreground", "face", "mouth", "eyes", "hair"}
    with pytest.raises(ArgumentError, match="'mouth'"):
        region_mask(_ALL, "nose")


def test_regions_do_not_depend_on_the_side():
    """The released network cannot tell left from right."""
    for left, right in ((2, 3), (4, 5), (7, 8)):
        for numbers in PARSING_REGIONS.values():
            assert (left in numbers) == (right in numbers)
        assert len(set(classes_to_parts(np.array([left, right]), PARTS))) == 1


def test_parts_agree_with_the_regions_of_masks():
    parts = classes_to_parts(_ALL, PARTS)
    assert parts.dtype == np.uint8
    for ours, theirs in (("foreground", "foreground"), ("mouth", "mouth")):
        np.testing.assert_array_equal(
            region_mask(_ALL, ours), np.isin(parts, list(REGIONS[theirs]))
        )
    # Ears and earrings belong to the face here, to the head there.
    face = np.isin(parts, list(REGIONS["face"] | {PARTS.index("ears")}))
    np.testing.assert_array_equal(region_mask(_ALL, "face"), face)
    assert [PARTS[number] for number in parts[14:]] == ["neck", "neck", "clothes", "hair", "hair"]


@pytest.mark.parametrize("wrong", [np.array([19]), np.array([-1]), np.array([1.0])])
def test_unknown_classes_are_refused(wrong):
    for function in (lambda x: region_mask(x, "face"), lambda x: classes_to_parts(x, PARTS)):
        with pytest.raises(ArgumentError, match="integers from 0 to 18"):
            function(wrong)
    with pytest.raises(ArgumentError, match="glasses"):
        classes_to_parts(_ALL, PARTS[:-1])


def test_resize_for_parsing_is_pillows_antialiased_bilinear():
    image = np.random.default_rng(0).integers(0, 256, (1024, 300, 3), np.uint8)
    found = resize_for_parsing(image)
    picture = Image.fromarray(image).resize((512, 512), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(picture))
    # Halved rows see four neighbours (1 3 3 1) / 8, not two: the picture is blurred first.
    rows = image[:, 0].astype(float)
    column = np.asarray(Image.fromarray(image[:, :1]).resize((1, 512), Image.Resampling.BILINEAR))
    weights = np.array([1, 3, 3, 1])[:, None] / 8
    expected = (rows[199:203] * weights).sum(0)
    np.testing.assert_allclose(column[100, 0], expected, atol=0.51)
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ArgumentError, match="uint8"):
            resize_for_parsing(wrong)


def test_resize_classes_takes_the_class_at_the_centre():
    classes = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(
        resize_classes(classes, (6, 8)), classes.repeat(2, axis=0).repeat(2, axis=1)
    )
    np.testing.assert_array_equal(resize_classes(classes, (1, 2)), [[5, 7]])
    for size in ((5, 7), (9, 2)):
        found = resize_classes(classes, size)
        for row in range(size[0]):
            for column in range(size[1]):
                y, x = ((row + 0.5) * 3 / size[0], (column + 0.5) * 4 / size[1])
                assert found[row, column] == classes[int(y), int(x)]


def test_logits_of_all_heads_have_the_size_of_the_images():
    module = face_parsing.FaceParsingNetwork(features=4)
    shapes = jax.eval_shape(
        lambda key: module.init_with_output(key, jnp.zeros((2, 64, 96, 3))), jax.random.key(0)
    )[0]
    assert [leaf.shape for leaf in shapes] == [(2, 64, 96, 19)] * 3


def test_parse_image_answers_at_the_pictures_own_size(monkeypatch):
    def fake(variables, images):
        assert images.shape == (1, 512, 512, 3) and images.dtype == np.float32
        assert images.max() == 1.0
        # The left half of the picture is white.
        return (images[..., 0] > 0.5).astype(np.uint8) * 17

    monkeypatch.setattr(face_parsing, "parse_faces", fake)
    image = np.zeros((90, 60, 3), np.uint8)
    image[:, :30] = 255
    classes = face_parsing.parse_image({}, image)
    assert classes.shape == (90, 60) and classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, np.where(image[..., 0] > 0, 17, 0))


def test_parse_faces_is_the_largest_main_logit(monkeypatch):
    module = face_parsing.FaceParsingNetwork(features=2)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape).astype("f4"), shapes)
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    images = rng.random((1, 64, 64, 3)).astype(np.float32)
    monkeypatch.setattr(face_parsing, "FaceParsingNetwork", lambda: module)
    face_parsing.parse_faces.clear_cache()  # another network under the same name
    classes = np.asarray(face_parsing.parse_faces(variables, images))
    face_parsing.parse_faces.clear_cache()
    logits = np.asarray(jax.jit(module.apply)(variables, images).main)
    assert classes.dtype == np.uint8 and len(np.unique(classes)) > 1
    np.testing.assert_array_equal(classes, logits.argmax(axis=-1))


def test_load_face_parsing_says_where_to_get_it():
    with pytest.raises(AssetNotFoundError) as caught:
        face_parsing.load_face_parsing()
    for word in ("79999_iter.pth", "zllrunning", "convert --model face_parsing", "Or use"):
        assert word in str(caught.value), word
