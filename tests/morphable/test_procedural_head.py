"""The built-in head: what its mesh, its modes and its expressions promise."""

import numpy as np
import pytest

from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.morphable.procedural_head import procedural_head_arrays


@pytest.fixture(scope="module")
def arrays():
    return procedural_head_arrays()


def _expression(arrays, name):
    return arrays["exprdirs"][[str(n) for n in arrays["expr_names"]].index(name)]


def _shape(arrays, name):
    return arrays["shapedirs"][[str(n) for n in arrays["shape_names"]].index(name)]


def _of_part(arrays, name):
    return arrays["vertex_part"] == PARTS.index(name)


def test_arrays_are_finite_and_of_one_size(arrays):
    count = len(arrays["v_template"])
    assert arrays["shapedirs"].shape == (len(arrays["shape_names"]), count, 3)
    assert arrays["exprdirs"].shape == (len(arrays["expr_names"]), count, 3)
    assert arrays["J_shapedirs"].shape == (5, 3, len(arrays["shape_names"]))
    for name in ("v_template", "shapedirs", "exprdirs", "lbs_weights", "uv"):
        assert np.isfinite(arrays[name]).all(), name
    assert arrays["faces"].min() == 0 and arrays["faces"].max() == count - 1
    assert arrays["uv"].min() >= 0 and arrays["uv"].max() <= 1
    np.testing.assert_allclose(arrays["lbs_weights"].sum(1), 1.0, atol=1e-6)


def test_proportions_are_those_of_a_human_head(arrays):
    skin = arrays["v_template"][_of_part(arrays, "face_skin") | _of_part(arrays, "scalp")]
    width, height, depth = np.ptp(skin, axis=0)
    # Adult means: breadth 15 cm, length 19 cm; crown to chin 22 to 23 cm.
    assert 14 < width < 16.5 and 20 < height < 24.5 and 19 < depth < 24  # depth with the nose
    eyes = arrays["J_template"][3:, 0]
    assert 6.0 < eyes[0] - eyes[1] < 6.6  # distance of the pupils


def test_front_faces_look_outwards(arrays):
    v, faces = arrays["v_template"].astype(float), arrays["faces"]
    normal = np.cross(v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]])
    middle = v[faces].mean(1)
    centers = {"face_skin": (0, 2, 0), "scalp": (0, 2, 0), "clothes": (0, -22, -1)}
    for part, center in centers.items():
        chosen = arrays["face_part"] == PARTS.index(part)
        outwards = np.einsum("fc,fc->f", normal[chosen], middle[chosen] - center)
        assert (outwards > 0).mean() > 0.93, part
    eyes = arrays["face_part"] == PARTS.index("eyeball")
    nearest = arrays["J_template"][3:][(middle[eyes, 0] < 0).astype(int)]
    outwards = np.einsum("fc,fc->f", normal[eyes], middle[eyes] - nearest)
    assert (outwards >= 0).all()


def test_mirror_swaps_the_sides(arrays):
    mirror, v = arrays["mirror"], arrays["v_template"]
    flip = np.array([-1.0, 1.0, 1.0], np.float32)
    assert np.abs(v[mirror] * flip - v).max() < 0.02
    for left, right in (("blink_L", "blink_R"), ("smile_L", "smile_R")):
        ours, theirs = _expression(arrays, left), _expression(arrays, right)
        assert np.abs(theirs[mirror] * flip - ours).max() < 0.02
    landmarks = arrays["landmarks68"]
    pairs = [(0, 16), (36, 45), (39, 42), (48, 54), (31, 35), (17, 26), (60, 64), (61, 63)]
    for first, second in pairs:
        assert np.abs(v[landmarks[first]] * flip - v[landmarks[second]]).max() < 1e-3


def test_landmarks_lie_in_multi_pie_order(arrays):
    points = arrays["v_template"][arrays["landmarks68"]]
    assert points[0, 0] < 0 < points[16, 0]  # the subject's right is the image's left
    assert (np.diff(points[:17, 0]) > 0).all()
    assert points[8, 1] == points[:17, 1].min()
    assert points[30, 2] == points[:, 2].max()  # tip of the nose
    assert (points[36:48, 1] > points[48:, 1].max()).all()
    assert (points[17:27, 1] > points[36:48, 1].max()).all()


def test_slits_are_real_openings(arrays):
    points = arrays["v_template"][arrays["landmarks68"]]
    gap = points[[37, 38, 43, 44], 1] - points[[41, 40, 47, 46], 1]
    assert (gap > 0.6).all()  # open eyes
    blink = _expression(arrays, "blink_L") + _expression(arrays, "blink_R")
    shut = (arrays["v_template"] + blink)[arrays["landmarks68"]]
    assert (shut[[37, 38, 43, 44], 1] - shut[[41, 40, 47, 46], 1] <= 1e-3).all()
    # The mouth is shut at rest, but its two edges are different vertices.
    upper, lower = arrays["landmarks68"][[61, 62, 63]], arrays["landmarks68"][[67, 66, 65]]
    assert (upper != lower).all()
    assert np.abs(arrays["v_template"][upper] - arrays["v_template"][lower]).max() < 1e-6


def test_jaw_opens_the_mouth_and_takes_the_lower_teeth_along(arrays):
    weights = arrays["lbs_weights"]
    upper, lower = arrays["landmarks68"][62], arrays["landmarks68"][66]
    jaw = [str(n) for n in arrays["joint_names"]].index("jaw")
    assert weights[lower, jaw] > 0.95 and weights[upper, jaw] < 0.05
    teeth = weights[_of_part(arrays, "teeth"), jaw]
    assert set(np.unique(teeth)) == {0.0, 1.0} and 0.4 < teeth.mean() < 0.6


def test_lids_clear_the_eyeballs(arrays):
    """Neither open nor half or fully shut lids let the eyeball through."""
    v = arrays["v_template"]
    lids = _of_part(arrays, "eyelids")
    for strength in (0.0, 0.5, 1.0):
        moved = v + strength * _expression(arrays, "blink_L")
        left = lids & (v[:, 0] > 0)
        distance = np.linalg.norm(moved[left] - arrays["J_template"][3], axis=1)
        # The rims end inside on purpose, everything else lies outside.
        inside = distance < 1.25
        np.testing.assert_allclose(distance[inside], 1.12, atol=0.08)
        assert inside.mean() < 0.25
        edge = moved[arrays["landmarks68"][42:48]] - arrays["J_template"][3]
        assert np.linalg.norm(edge, axis=1).min() > 1.25


def test_talking_expressions_are_strong_enough_to_see(arrays):
    """A pixel at 64 px is about half a centimetre: each expression moves its region by more."""
    for name in map(str, arrays["expr_names"]):
        least = 0.25 if name == "squint" else 0.5
        assert np.linalg.norm(_expression(arrays, name), axis=1).max() > least, name


def test_identity_modes_move_what_they_name(arrays):
    points = arrays["landmarks68"]
    spacing = _shape(arrays, "eye_spacing")[points]
    assert spacing[42:48, 0].mean() > 0.1 and spacing[36:42, 0].mean() < -0.1
    assert _shape(arrays, "face_length")[points[8], 1] < -0.25
    assert _shape(arrays, "mouth_width")[points[54], 0] > 0.1
    assert _shape(arrays, "nose_projection")[points[30], 2] > 0.1


def test_hair_and_glasses_hide_inside_the_head_unless_worn(arrays):
    v = arrays["v_template"]
    scalp = np.linalg.norm(v[_of_part(arrays, "scalp")] - [0, 3, 0], axis=1)
    hidden = v[_of_part(arrays, "glasses")]
    assert np.abs(hidden - [0, 5, 1]).max() < 0.5
    hair = _of_part(arrays, "hair")
    for name in ("hair_short", "hair_afro", "hair_long"):
        worn = (v + _shape(arrays, name))[hair]
        top = worn[:, 1] > 9
        assert np.linalg.norm(worn[top] - [0, 3, 0], axis=1).mean() > scalp.mean() - 0.5
        assert (np.linalg.norm(_shape(arrays, name)[hair], axis=1) > 0.3).mean() > 0.9
    glasses = (v + _shape(arrays, "glasses"))[_of_part(arrays, "glasses")]
    assert np.ptp(glasses[:, 0]) > 14  # from ear to ear
