"""Drawn guidance: against brute force, closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.models.gdpw.guidance import (
    GuidanceMaps,
    draw_attributes,
    guidance_maps,
    guidance_pyramid,
    normalize_vertices,
)
from talking_heads_jax.models.gdpw.model import ProgressiveWarping
from talking_heads_jax.morphable.face_mesh import FaceMesh
from talking_heads_jax.ops.rasterizer import mesh_topology
from tests.models.toy_gdpw import SIZE, ball_mesh, crop_vertices, random_variables, tiny_gdpw


def z_buffer(positions, faces, size):
    """Nearest face and barycentrics of every pixel by brute force: every face in its whole box.

    Args:
      positions: (v 3) float32, normalised.
      faces: (f 3).
      size: of the image.
    """
    half = np.float32(0.5)
    window = (positions[:, :2] * half + half) * np.float32(size)
    fixed = np.round(window * np.float32(256)).astype(np.float64) / 256
    exact = positions.astype(np.float64)
    exact[:, :2] = (exact[:, :2] * 0.5 + 0.5) * size

    def areas(points, centre):
        x, y = points[faces, 0] - centre[:, :1], points[faces, 1] - centre[:, 1:]
        return np.stack(
            [x[:, j] * y[:, k] - y[:, j] * x[:, k] for j, k in ((1, 2), (2, 0), (0, 1))], axis=1
        )

    corner = np.floor(fixed[faces].min(axis=1)).astype(int)
    side = int((np.ceil(fixed[faces].max(axis=1)) - corner).max())
    nearest = np.full((size, size), np.inf)
    face_id = np.full((size, size), -1)
    weights = np.zeros((size, size, 3))
    for offset in np.ndindex(side, side):
        pixel = corner + offset
        centre = pixel + 0.5
        covering, exactly = areas(fixed, centre), areas(exact, centre)
        total = exactly.sum(axis=1)
        inside = ((covering >= 0).all(axis=1) | (covering <= 0).all(axis=1)) & (
            covering.sum(axis=1) != 0
        )
        inside &= ((pixel >= 0) & (pixel < size)).all(axis=1) & (total != 0)
        for face in np.flatnonzero(inside):
            column, row = pixel[face]
            shares = exactly[face] / total[face]
            depth = shares @ exact[faces[face], 2]
            closer = depth < nearest[row, column]
            if closer or (depth == nearest[row, column] and face < face_id[row, column]):
                nearest[row, column], face_id[row, column] = depth, face
                weights[row, column] = shares
    a, b, c = (positions[faces[:, i]].astype(np.float64) for i in range(3))
    away = np.cross(b - a, c - a)[:, 2] > 0
    hidden = (face_id >= 0) & away[face_id]
    return np.where(hidden, -1, face_id), np.where(hidden[..., None], 0, weights)


def paint(attributes, face_id, weights, faces):
    rows = np.asarray(attributes, np.float64)[faces[np.maximum(face_id, 0)]]
    return np.where(face_id[..., None] >= 0, np.einsum("hwk,hwkd->hwd", weights, rows), 0.0)


def near_silhouettes(face_id, positions, faces):
    """Pixels beside one of another face (or none), if either face has an edge on an outline.

    An edge is on an outline where no other face shares it, or one that is wound the other way.
    """
    a, b, c = (positions[faces[:, i]].astype(np.float64) for i in range(3))
    away = np.repeat(np.cross(b - a, c - a)[:, 2] > 0, 3)
    edges = np.sort(faces[:, [[1, 2], [2, 0], [0, 1]]], axis=-1).reshape(-1, 2)
    _, edge, count = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    edge = edge.reshape(-1)
    outline = (count != 2) | (np.bincount(edge, away) == 1)
    on_outline = np.append(outline[edge].reshape(-1, 3).any(axis=1), True)  # -1 is background
    near = np.zeros(face_id.shape, bool)
    for axis in (0, 1):
        inner = np.arange(face_id.shape[axis] - 1)
        first, second = (np.take(face_id, inner + step, axis) for step in (0, 1))
        changes = (first != second) & (on_outline[first] | on_outline[second])
        for step in (0, 1):
            index = [slice(None)] * 2
            index[axis] = slice(step, face_id.shape[axis] + step - 1)
            near[tuple(index)] |= changes
    return near


def heads(name, request):
    """Faces, and a head (v 3) in crop pixels with itself turned by 10 degrees; the crop's size."""
    if name == "ball":
        template, faces = ball_mesh()
        return faces, crop_vertices(template), crop_vertices(template, yaw_deg=10.0), SIZE
    golden = request.getfixturevalue("shared_folder") / "golden"
    with np.load(golden / "raster_opengl.npz") as case:
        points, faces = case["in/vertices"], case["in/faces"].astype(np.int32)
    points = points * np.float32([128, 128, 80]) + np.float32([128, 128, 0])
    centre = points.mean(axis=0)
    angle = np.radians(10.0)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    turned = ((points - centre) @ turn.T + centre).astype(np.float32)
    return faces, points[None], turned[None], 256


@pytest.mark.parametrize("name", ["ball", "raster_opengl"])
def test_whole_model_equals_itself_on_brute_force_guidance(name, request, tmp_path):
    faces, source, driving, size = heads(name, request)
    count = source.shape[1]
    path = tmp_path / "mesh.npz"
    np.savez(path, v_template=source[0], faces=faces)
    model = tiny_gdpw(str(path), resolution=size, generator={"num_levels": 3})
    generator = model.networks["generator"]
    variables = random_variables(model)["generator"]
    codes = np.asarray(variables["params"]["codes"])
    assert codes.shape == (count, 4)

    normal = [np.asarray(normalize_vertices(x, size, shift_px=-0.5)) for x in (source, driving)]
    drawn = [z_buffer(positions[0], faces, size) for positions in normal]
    flow = normal[0][0, :, :2] - normal[1][0, :, :2]
    brute = GuidanceMaps(
        *(
            paint(attributes, *drawn[which], faces)[None].astype(np.float32)
            for attributes, which in ((flow, 1), (codes, 1), (codes, 0))
        )
    )
    assert 0.15 < (drawn[1][0] >= 0).mean() < 0.9

    ours = jax.jit(lambda v, a, b: generator.apply(v, a, b, method="draw"))(
        variables, source, driving
    )
    near = [
        near_silhouettes(face_id, positions[0], faces)
        for (face_id, _), positions in zip(drawn, normal, strict=True)
    ]
    assert max(mask.mean() for mask in near) < 0.3
    for mine, other, mask in zip(ours, brute, (near[1], near[1], near[0]), strict=True):
        difference = np.abs(np.asarray(mine) - other).max(axis=-1)[0]
        # Weights in float32: slivers of a hundredth of a pixel know theirs to a thousandth.
        assert np.quantile(difference[~mask], 0.999) < 2e-4
        assert difference[~mask].max() < 5e-3
        assert difference[mask].max() > 0.01  # smoothed there, and nowhere else

    # A convolution sees silhouettes from afar, so both runs are given the same ones.
    mixed = GuidanceMaps(
        *(
            np.where(mask[None, ..., None], np.asarray(mine), other)
            for mine, other, mask in zip(ours, brute, (near[1], near[1], near[0]), strict=True)
        )
    )
    image = np.random.default_rng(0).random((1, size, size, 3)).astype(np.float32)
    run = jax.jit(lambda v, image, maps: generator.apply(v, image, maps, train=False))
    results = [run(variables, image, maps) for maps in (ours, mixed)]
    for key, limit in (("prediction", 2e-4), ("deformed", 2e-3)):
        # The sampling of noise multiplies a flow's error by the image's steepness, in pixels.
        np.testing.assert_allclose(results[0][key], results[1][key], atol=limit)


def test_without_smoothing_the_drawing_is_the_z_buffer():
    template, faces = ball_mesh()
    positions = normalize_vertices(crop_vertices(template, yaw_deg=25.0), SIZE, shift_px=0.0)
    attributes = np.random.default_rng(0).random((len(template), 3)).astype(np.float32)
    drawn = draw_attributes(attributes, positions, faces, None, size=SIZE)[0]
    expected = paint(attributes, *z_buffer(np.asarray(positions[0]), faces, SIZE), faces)
    np.testing.assert_allclose(drawn, expected, atol=2e-5)  # float32 barycentrics


def test_normalize_vertices_shifts_half_a_pixel_as_the_released_renderer():
    vertices = np.array([[[0.0, 256.0, -3.0], [128.5, 0.5, 2.0]]], np.float32)
    found = normalize_vertices(vertices, 256, shift_px=-0.5)
    official = 2 * (vertices[..., :2] - 0.5) / 256 - 1  # its x, y are pixel indices
    np.testing.assert_allclose(found[..., :2], official, atol=1e-6)
    assert found[0, 0, 2] < found[0, 1, 2]  # nearer stays nearer


def test_flow_points_from_the_driving_to_the_source_mesh():
    template, faces = ball_mesh()
    source = crop_vertices(template, shift=(-3.0, 0.0))
    driving = crop_vertices(template, shift=(1.0, 2.0))
    flow = np.asarray(guidance_maps(source, driving, faces, size=SIZE).flow[0])
    positions = normalize_vertices(driving, SIZE, shift_px=-0.5)
    inside = z_buffer(np.asarray(positions[0]), faces, SIZE)[0] >= 0  # the driving mesh's place
    expected = np.array([-4.0, -2.0]) * 2 / SIZE
    np.testing.assert_allclose(flow, np.where(inside[..., None], expected, 0.0), atol=1e-6)


def test_what_faces_away_is_background_and_hides_what_is_behind():
    def square(z, front):
        corners = [[4, 4, z], [28, 4, z], [28, 28, z], [4, 28, z]]
        # y points down: front-facing triangles run clockwise on the screen's numbers.
        order = [[0, 2, 1], [0, 3, 2]] if front else [[0, 1, 2], [0, 2, 3]]
        return np.array(corners, np.float32), np.array(order)

    near, near_faces = square(-5.0, front=False)
    far, far_faces = square(5.0, front=True)
    faces = np.concatenate([near_faces, far_faces + 4]).astype(np.int32)
    vertices = np.concatenate([near, far])[None]
    ones = np.ones((8, 1), np.float32)
    hidden = guidance_maps(vertices, vertices, faces, ones, size=SIZE, with_flow=False)
    assert float(jnp.abs(hidden.driving_codes).max()) == 0.0
    swapped = vertices * np.float32([1, 1, -1])
    shown = guidance_maps(swapped, swapped, faces, ones, size=SIZE, with_flow=False)
    assert float(shown.driving_codes[0, 16, 16, 0]) == 1.0
    # The paper's order: what faces away is left out before drawing, on both meshes.
    culled = guidance_maps(vertices, vertices, faces, ones, size=SIZE, with_flow=False, cull="back")
    for drawn in (culled.driving_codes, culled.source_codes):
        assert float(drawn[0, 16, 16, 0]) == 1.0


@pytest.fixture(scope="module")
def codes_and_loss():
    """A loss of the drawn codes as a function of them, and the codes that are ever visible."""
    template, faces = ball_mesh()
    vertices = crop_vertices(template, yaw_deg=15.0)
    positions = normalize_vertices(vertices, SIZE, shift_px=-0.5)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1, SIZE, SIZE, 4)).astype(np.float32)
    codes = rng.random((len(template), 4)).astype(np.float32)
    topology = mesh_topology(faces)

    @jax.jit
    def loss(codes):
        image = draw_attributes(codes, positions, faces, topology, size=SIZE)
        return jnp.sum(weights * image**2)

    face_id, _ = z_buffer(np.asarray(positions[0]), faces, SIZE)
    return codes, loss, np.unique(faces[face_id[face_id >= 0]])


def test_gradients_of_codes_equal_finite_differences(codes_and_loss):
    codes, loss, _ = codes_and_loss
    gradient = jax.grad(loss)(codes)
    rng = np.random.default_rng(1)
    for _ in range(4):
        direction = rng.normal(size=codes.shape).astype(np.float32)
        step = np.float32(1e-2)  # the loss is quadratic in the codes: no error but rounding
        numeric = (loss(codes + step * direction) - loss(codes - step * direction)) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), numeric, rtol=2e-3)


def test_only_codes_of_visible_vertices_have_gradients(codes_and_loss):
    codes, loss, visible = codes_and_loss
    size = np.abs(jax.grad(loss)(codes)).max(axis=-1)
    assert 20 < len(visible) < len(codes) - 20
    assert size[visible].min() > 0
    np.testing.assert_array_equal(np.delete(size, visible), 0.0)


def test_pyramid_at_stride_equals_the_literal_one():
    size = 32
    maps = np.random.default_rng(0).random((2, size, size, 2)).astype(np.float32)
    strides = [1, 2, 4, 8, 16, 32]
    fast = guidance_pyramid(maps, strides)
    literal = guidance_pyramid(maps, strides, implementation="literal")
    for stride in strides:
        assert fast[stride].shape == (2, size // stride, size // stride, 2)
        np.testing.assert_allclose(fast[stride], literal[stride], atol=1e-6)
    np.testing.assert_array_equal(fast[1], maps)


def test_pyramid_keeps_the_unit_and_the_official_peak():
    """Table of the released kernels: peak of the 2-D kernel at each stride."""
    point = np.zeros((1, 128, 128, 1), np.float32)
    point[0, 64, 64] = 1.0
    peaks = {2: 0.618694, 4: 0.070737, 8: 0.012993, 16: 0.0028297, 32: 0.00066253}
    for stride, level in guidance_pyramid(point, peaks).items():
        np.testing.assert_allclose(
            level[0, 64 // stride, 64 // stride, 0], peaks[stride], rtol=1e-4
        )
    constant = guidance_pyramid(np.full((1, 128, 128, 1), 0.3, np.float32), [4])[4]
    np.testing.assert_allclose(constant[0, 8:-8, 8:-8], 0.3, rtol=1e-5)


def test_face_mesh_reads_models_and_files(tmp_path):
    template, faces = ball_mesh()
    np.savez(tmp_path / "ball.npz", v_template=template, faces=faces)
    lines = [f"v {x} {y} {z}" for x, y, z in template] + [f"f {a} {b} {c}" for a, b, c in faces + 1]
    (tmp_path / "ball.obj").write_text("\n".join(lines))
    for ending in ("npz", "obj"):
        mesh = FaceMesh(str(tmp_path / f"ball.{ending}"))
        assert mesh.num_vertices == len(template)
        np.testing.assert_array_equal(mesh.faces, faces)
        assert mesh.coordinates.min() == 0.0 and mesh.coordinates.max() == 1.0
        assert (mesh.topology.opposite >= 0).all()  # it is closed
    # The mesh.npz of a data set has no mean face.
    np.savez(tmp_path / "mesh.npz", faces=faces, mirror=np.arange(len(template) + 1))
    mesh = FaceMesh(str(tmp_path / "mesh.npz"))
    assert mesh.num_vertices == len(template) + 1
    with pytest.raises(ArgumentError, match="v_template"):
        mesh.coordinates  # noqa: B018 - the property reads
    assert FaceMesh("flame2020").num_vertices == 5023  # known without the file
    assert FaceMesh("procedural") == FaceMesh("procedural") != FaceMesh("ict")


@pytest.mark.parametrize("name", ["flame2099", "head.stl", ""])
def test_face_mesh_refuses_other_names(name):
    with pytest.raises(ArgumentError, match="morphable model or an"):
        FaceMesh(name)


def test_face_mesh_refuses_files_without_a_mesh(tmp_path):
    np.savez(tmp_path / "other.npz", faces=np.zeros((2, 3), np.int32))
    with pytest.raises(ArgumentError, match="v_template"):
        FaceMesh(str(tmp_path / "other.npz")).faces  # noqa: B018 - the property reads
    with pytest.raises(ArgumentError, match="readable file"):
        FaceMesh(str(tmp_path / "none.npz")).faces  # noqa: B018 - likewise


def test_building_for_a_licensed_mesh_needs_no_file_but_drawing_does():
    from talking_heads_jax.errors import AssetNotFoundError

    model = ProgressiveWarping(resolution=SIZE, generator={"num_levels": 4, "block_expansion": 2})
    generator = model.networks["generator"]
    shapes = jax.eval_shape(lambda key: model.init(key, ["generator"]), jax.random.key(0))
    assert shapes["generator"]["params"]["codes"].shape == (5023, 16)
    vertices = jnp.zeros((1, 5023, 3))
    with pytest.raises(AssetNotFoundError, match="flame2020"):
        jax.eval_shape(
            lambda v: generator.apply(v, vertices, vertices, method="draw"), shapes["generator"]
        )
