"""The rasteriser against brute force, both implementations on the same cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops import rasterizer
from talking_heads_jax.ops.platform import compiling_for
from talking_heads_jax.ops.rasterizer_scatter import scatter_triangles
from talking_heads_jax.ops.rasterizer_tiles import draw_tiles
from talking_heads_jax.ops.triangle_setup import Triangles
from tests.ops import rasterizer_reference as reference

HEIGHT, WIDTH = 40, 48
# All meshes have as many vertices and faces: each implementation compiles once per kind of input.
VERTICES, FACES = 780, 260
IMPLEMENTATIONS = ("scatter", "tiles")
CROSS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))


def padded(positions, faces):
    """Fills a mesh up with unused vertices and faces without an area."""
    positions = np.asarray(positions, np.float32)
    full = np.ones((VERTICES, positions.shape[1]), np.float32)
    full[: len(positions)] = positions
    return full, np.pad(np.asarray(faces, np.int32), ((0, FACES - len(faces)), (0, 0)))


def soup(rng, *, num=240, size=0.4, coordinates=3):
    """Triangles anywhere, some across the border, wound either way."""
    centres = rng.uniform(-1.2, 1.2, (num, 1, 3))
    corners = centres + rng.normal(size=(num, 3, 3)) * [size, size, 0.1]
    if coordinates == 4:
        w = rng.uniform(0.5, 2.0, (num, 3, 1))
        corners = np.concatenate([corners, np.ones_like(w)], axis=-1) * w
    faces = np.arange(3 * num).reshape(num, 3)
    return padded(corners.reshape(-1, coordinates), faces)


def slivers(rng):
    """Needles of thousandths to tenths of a pixel, lines and points among them."""
    num = 240
    a = rng.uniform(-1.1, 1.1, (num, 3))
    b = a + rng.normal(size=(num, 3)) * [0.8, 0.8, 0.3]
    thickness = 10.0 ** rng.uniform(-4, -1.5, (num, 1))
    c = a + rng.uniform(0, 1, (num, 1)) * (b - a) + rng.normal(size=(num, 3)) * thickness
    corners = np.stack([a, b, c], axis=1)
    corners[:10, 2] = corners[:10, 1]
    corners[10:15] = corners[10:15, :1]
    return padded(corners.reshape(-1, 3), np.arange(3 * num).reshape(num, 3))


def grid(rng, *, jitter):
    """Ten by twelve squares over the image and beyond, their corners on pixel centres or near."""
    rows, columns = np.meshgrid(np.arange(11), np.arange(13), indexing="ij")
    x = (columns * 4 + 0.5 + jitter * rng.normal(size=rows.shape)) / WIDTH * 2 - 1
    y = (rows * 4 + 0.5 + jitter * rng.normal(size=rows.shape)) / HEIGHT * 2 - 1
    x[:, 0], y[0] = -1.1, -1.1
    positions = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    a = (np.arange(10)[:, None] * 13 + np.arange(12)).reshape(-1)
    faces = np.concatenate([np.stack([a, a + 1, a + 14], 1), np.stack([a, a + 13, a + 14], 1)])
    return padded(positions, rng.permutation(faces))


def behind(rng):
    """A perspective soup: in front, behind the camera, at the plane w = 0 and across it."""
    positions, faces = soup(rng, coordinates=4, size=0.6)
    positions[:, 3] = rng.uniform(-0.6, 1.4, VERTICES)
    positions[:90:3, 3] = 10.0 ** rng.uniform(-9, -4, 30)
    return positions, faces


def one_pixel(rng):
    """Hundreds of triangles within one pixel, in front of and behind two that cover everything."""
    around = np.array([-1 + 2 * 20.5 / WIDTH, -1 + 2 * 11.5 / HEIGHT, 0])
    corners = around + rng.uniform(-1, 1, (250, 3, 3)) * [0.5 / WIDTH, 0.5 / HEIGHT, 0.5]
    corners[100] = [[-9, -9, 0.2], [9, -9, 0.1], [0, 20, 0.3]]
    corners[101] = [[-9, -9, -0.1], [0, 20, 0.3], [9, -9, 0.7]]
    return padded(corners.reshape(-1, 3), np.arange(750).reshape(250, 3))


CASES = {
    "soup": (soup, {}),
    "large triangles": (soup, {"size": 3.0}),
    "small triangles": (soup, {"size": 0.05}),
    "perspective": (soup, {"coordinates": 4}),
    "slivers": (slivers, {}),
    "edges through pixel centres": (grid, {"jitter": 0.0}),
    "shared edges": (grid, {"jitter": 0.8}),
    "behind the camera": (behind, {}),
    "hundreds in one pixel": (one_pixel, {}),
}


def draw(positions, faces, **options):
    return rasterizer.rasterize(
        jnp.asarray(positions)[None], faces, height=HEIGHT, width=WIDTH, **options
    )


def assert_equals_reference(fragments, expected):
    """Same faces; another one only where float32 cannot tell which of the two is nearer."""
    face_id, barycentric, depth, depths = expected
    found = np.asarray(fragments.face_id[0])
    for row, column in np.argwhere(found != face_id):
        ours, theirs = found[row, column], face_id[row, column]
        assert ours >= 0 and theirs >= 0, (row, column, ours, theirs)
        there = depths[[ours, theirs], row, column]
        # inf would say that our triangle does not cover this pixel.
        assert abs(there[0] - there[1]) < 2e-5 * max(1, abs(there[1])), (row, column, there)
    same = found == face_id
    assert same.mean() > 0.998
    # The weights of a needle are quotients of tiny areas: errors in units of the weights' size.
    size = np.maximum(1, np.abs(barycentric).max(axis=-1))
    error = np.abs(np.asarray(fragments.barycentric[0]) - barycentric).max(axis=-1) / size
    assert np.quantile(error[same], 0.99) < 1e-3
    error = np.abs(np.asarray(fragments.depth[0]) - depth)
    assert np.quantile(error[same] / np.maximum(1, np.abs(depth[same])), 0.99) < 1e-3
    assert not np.asarray(fragments.overflow).any()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", CASES)
def test_rasterize_equals_brute_force(name, implementation):
    make, options = CASES[name]
    positions, faces = make(np.random.default_rng(7), **options)
    expected = reference.rasterize(positions, faces, HEIGHT, WIDTH)
    assert (expected[0] >= 0).mean() > 0.01 or name == "hundreds in one pixel"
    assert_equals_reference(draw(positions, faces, implementation=implementation), expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("name", "cull"), [("soup", "back_after"), ("behind the camera", "back")])
def test_rasterize_culls_as_brute_force(name, cull, implementation):
    make, options = CASES[name]
    positions, faces = make(np.random.default_rng(8), **options)
    expected = reference.rasterize(positions, faces, HEIGHT, WIDTH, cull)
    fragments = draw(positions, faces, cull=cull, implementation=implementation)
    assert_equals_reference(fragments, expected)
    everything = reference.rasterize(positions, faces, HEIGHT, WIDTH)[0]
    changed = expected[0] != everything
    assert changed.any()
    if cull == "back_after":  # holes, through which nothing shows
        assert (expected[0][changed] == -1).all()
    else:
        assert (expected[0][changed] >= 0).any()


def test_shared_edges_leave_no_pixel_out():
    for jitter in (0.0, 0.8):
        positions, faces = grid(np.random.default_rng(3), jitter=jitter)
        inside = np.asarray(draw(positions, faces).face_id)[0, :38, :46]
        assert (inside >= 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equal_depth_shows_the_lowest_number(implementation):
    corners = np.array([[-0.8, -0.8, -0.0], [0.8, -0.7, 0.0], [0.1, 0.9, 0.0]])
    faces = [[3, 3, 3], [0, 2, 1], [0, 1, 2], [0, 1, 2]]
    positions, faces = padded(corners, faces)
    fragments = draw(positions, faces, implementation=implementation)
    assert set(np.unique(fragments.face_id)) == {-1, 1}
    # In front of the camera at any distance, signed zero or not.
    assert np.all(np.asarray(fragments.depth) == 0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_budget_counts_what_is_left_out(implementation):
    positions, faces = soup(np.random.default_rng(1))
    complete = draw(positions, faces, implementation=implementation)
    assert rasterizer.require_complete(complete) is complete
    cut = draw(positions, faces, implementation=implementation, budget=200)
    missing = int(cut.overflow[0])
    assert missing > 0
    assert (np.asarray(cut.face_id) != np.asarray(complete.face_id)).any()
    with pytest.raises(ArgumentError, match=f"got {missing} too few for mesh 0"):
        rasterizer.require_complete(cut)
    exact = draw(positions, faces, implementation=implementation, budget=200 + missing)
    np.testing.assert_array_equal(exact.face_id, complete.face_id)
    assert not np.asarray(exact.overflow).any()


@pytest.mark.parametrize("find_nearest", [scatter_triangles, draw_tiles])
def test_more_entries_than_int32_holds_are_reported(find_nearest):
    """Made-up boxes of 2^14 x 2^14 pixels: 2^26 blocks or 2^20 pairs of tile and triangle each."""
    num = 2**11
    side = jnp.full(num, 2**14, jnp.int32)
    zero, plane = jnp.zeros(num, jnp.int32), jnp.zeros(num)
    triangles = Triangles(*3 * [(plane,) * 3], *3 * [plane], zero, zero, side, side)
    face_id, overflow = find_nearest(
        triangles, height=16, width=16, budget=jnp.int32(2**30), chunk=1024
    )
    assert int(overflow) == 2**31 - 1 and (np.asarray(face_id) == -1).all()


def test_vertices_that_are_not_finite_hide_only_their_triangles():
    positions, faces = soup(np.random.default_rng(2))
    positions[6], positions[10, 0], positions[14, 1] = np.nan, np.inf, -np.inf
    expected = reference.rasterize(positions, faces, HEIGHT, WIDTH)
    for implementation in IMPLEMENTATIONS:
        assert_equals_reference(draw(positions, faces, implementation=implementation), expected)


def test_batch_jit_and_vmap_equal_single_calls():
    rng = np.random.default_rng(4)
    meshes = [soup(rng)[0] for _ in range(4)]
    faces = soup(rng)[1]
    singles = [draw(mesh, faces) for mesh in meshes]
    stacked = jnp.asarray(np.stack(meshes))

    def run(positions):
        return rasterizer.rasterize(positions, faces, height=HEIGHT, width=WIDTH)

    batch = run(stacked)
    mapped = jax.jit(jax.vmap(lambda mesh: run(mesh[None])))(stacked)
    with compiling_for("gpu"):  # batches are drawn together there
        together = run(stacked)
    for name in rasterizer.Fragments._fields:
        wanted = np.concatenate([np.asarray(getattr(single, name)) for single in singles])
        for other in (batch, jax.tree.map(lambda x: x[:, 0], mapped), together):
            # Fusion may round barycentrics differently; faces are the same.
            np.testing.assert_allclose(getattr(other, name), wanted, atol=2e-4)
        if name == "face_id":
            np.testing.assert_array_equal(batch.face_id, wanted)


def test_platform_chooses_the_implementation():
    positions, faces = soup(np.random.default_rng(5))

    def program(platform):
        with compiling_for(platform):
            return str(jax.make_jaxpr(lambda p: draw(p, faces).face_id)(positions))

    assert "scatter" in program("cpu") and "sort[" not in program("cpu")
    assert "sort[" in program("tpu") and "scatter" not in program("tpu")


def test_interpolate_is_perspective_correct():
    positions, faces = soup(np.random.default_rng(6), coordinates=4)
    fragments = draw(positions, faces)
    window = reference.to_window(positions, HEIGHT, WIDTH)
    values = rasterizer.interpolate(jnp.asarray(positions), fragments, faces)[0]
    seen = np.asarray(fragments.face_id[0]) >= 0
    # Interpolating clip space itself and dividing gives the pixel's centre back.
    x, y = (np.asarray(values[..., i] / values[..., 3]) for i in range(2))
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    np.testing.assert_allclose(x[seen], (columns / WIDTH * 2 - 1)[seen], atol=1e-4)
    np.testing.assert_allclose(y[seen], (rows / HEIGHT * 2 - 1)[seen], atol=1e-4)
    assert np.all(np.asarray(values)[~seen] == 0) and seen.any() and window.max() > WIDTH


def test_interpolate_gradients_equal_finite_differences():
    rng = np.random.default_rng(9)
    positions, faces = soup(rng, num=8, size=0.8, coordinates=4)
    attributes = jnp.asarray(rng.normal(size=(1, VERTICES, 2)), jnp.float32)
    # Which face is seen has no derivative: pixels away from the borders keep theirs.
    face_id = np.asarray(draw(positions, faces).face_id[0])
    inside = np.zeros(face_id.shape, bool)
    around = [face_id[1 + i : HEIGHT - 1 + i, 1 + j : WIDTH - 1 + j] for i, j in CROSS]
    inside[1:-1, 1:-1] = (around == around[0]).all(axis=0)
    assert inside.mean() > 0.3 and (face_id[inside] >= 0).any()
    weights = jnp.asarray(rng.normal(size=(HEIGHT, WIDTH, 3)) * inside[..., None], jnp.float32)
    start = jnp.asarray(positions)[None]

    def loss(points, values):
        fragments = rasterizer.rasterize(points, faces, height=HEIGHT, width=WIDTH)
        shaded = rasterizer.interpolate(values, fragments, faces)
        image = jnp.concatenate([shaded, fragments.depth[..., None]], axis=-1)
        return jnp.sum(image * weights)

    gradients = jax.jit(jax.grad(loss, (0, 1)))(start, attributes)
    assert all(np.isfinite(np.asarray(gradient)).all() for gradient in gradients)
    loss = jax.jit(loss)
    for argument in (0, 1):
        direction = rng.normal(size=gradients[argument].shape).astype(np.float32)
        step = 1e-4 if argument == 0 else 1e-2
        moved = []
        for sign in (1, -1):
            arguments = [start, attributes]
            arguments[argument] = arguments[argument] + sign * step * direction
            moved.append(float(loss(*arguments)))
        numeric = (moved[0] - moved[1]) / (2 * step)
        exact = float(jnp.sum(gradients[argument] * direction))
        # A sum of two thousand pixels in float32, divided by a small step.
        assert abs(numeric - exact) < 0.01 * max(abs(exact), 10), (argument, numeric, exact)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros((1, 4, 2)), [[0, 1, 2]]), {}, "positions must have 3 or 4 coordinates"),
        ((np.zeros((1, 3, 3)), [[1, 2, 3]]), {}, r"faces must name vertices of \[0, 3\)"),
        ((np.zeros((1, 3, 3)), [[-1, 0, 1]]), {}, "Do they count from 1"),
        ((np.zeros((1, 3, 3)), np.zeros((0, 3))), {}, "a mesh must have a triangle"),
        ((np.zeros((1, 3, 3)), [[0, 1, 2]]), {"cull": "front"}, "Use one of 'none'"),
        ((np.zeros((1, 3, 3)), [[0, 1, 2]]), {"implementation": "gl"}, "Use one of 'auto'"),
        ((np.zeros((1, 3, 3)), [[0, 1, 2]]), {"height": 0}, "height must lie between 1 and"),
        ((np.zeros((1, 3, 3)), [[0, 1, 2]]), {"budget": -1}, "budget must lie between 0 and"),
    ],
)
def test_rasterize_refuses(arguments, options, message):
    positions, faces = arguments
    with pytest.raises(ArgumentError, match=message):
        rasterizer.rasterize(
            jnp.asarray(positions, jnp.float32),
            np.asarray(faces, np.int32),
            **{"height": 8, "width": 8, **options},
        )
