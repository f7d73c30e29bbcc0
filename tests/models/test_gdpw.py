"""GDPW's networks: sizes, warps, variants, and what training and inference share."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.errors import ArgumentError, ConfigError
from talking_heads_jax.models.base import count_parameters
from talking_heads_jax.models.gdpw.decoder import ProgressiveDecoder, resize_flow
from talking_heads_jax.models.gdpw.guidance import GuidanceMaps, MeshPair
from talking_heads_jax.models.gdpw.model import ProgressiveWarping
from talking_heads_jax.models.gdpw.spade_residual import GuidedNorm
from talking_heads_jax.models.gdpw.warping_module import FlowHead, warp_by_flow
from talking_heads_jax.models.registry import build_model
from tests.models.toy_gdpw import (
    SIZE,
    ball_mesh,
    crop_vertices,
    random_variables,
    tiny_gdpw,
    write_mesh,
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    return write_mesh(tmp_path_factory.mktemp("mesh"))


@pytest.fixture(scope="module")
def faces_of_two():
    """A source and a driving face, batch 2."""
    rng = np.random.default_rng(0)
    template, _ = ball_mesh()
    images = jnp.asarray(rng.random((2, 2, SIZE, SIZE, 3)), jnp.float32)
    return (
        FaceInputs(image=images[0], vertices=crop_vertices(template, batch=2)),
        FaceInputs(image=images[1], vertices=crop_vertices(template, yaw_deg=20.0, batch=2)),
    )


def test_released_sizes():
    """Parameters of the released files; 9,440,256 of each belong to a block nothing uses."""
    model = build_model("gdpw", guidance="both")
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert count_parameters(shapes["generator"]["params"]) == 141_883_134 - 9_440_256
    assert count_parameters(shapes["discriminator"]["params"]) == 695_201
    first = shapes["generator"]["params"]["encoder"]["down_1"]["conv"]["kernel"]
    assert first.shape == (3, 3, 19, 32)
    score = model.networks["discriminator"]
    image = jnp.zeros((1, 256, 256, 3))
    scores = jax.eval_shape(lambda v: score.apply(v, image, train=False), shapes["discriminator"])
    assert scores[1.0].logits.shape == (1, 17, 17, 1)
    assert [f.shape[1] for f in scores[1.0].features] == [128, 64, 32, 16]


def test_warp_reproduces_the_mismatched_corner_rules():
    """Values of the released code for a ramp 1..8 without motion (one row of the interior)."""
    ramp = jnp.broadcast_to(jnp.arange(1.0, 9.0)[:, None, None], (1, 8, 8, 1))
    warped = warp_by_flow(ramp, jnp.zeros((1, 8, 8, 2)), align_corners=False)[0, :, :, 0]
    # From one end to the other; borders are halved, corners quartered.
    expected = [0.5, 1.643, 2.786, 3.929, 5.071, 6.214, 7.357, 4.0]
    np.testing.assert_allclose(warped[:, 3], expected, atol=1e-3)
    np.testing.assert_allclose(warped[:, 0], np.array(expected) / 2, atol=1e-3)
    agreeing = warp_by_flow(ramp, jnp.zeros((1, 8, 8, 2)), align_corners=True)
    np.testing.assert_allclose(agreeing, ramp, atol=1e-5)


def test_warp_reads_where_the_flow_points():
    image = np.zeros((1, 16, 16, 1), np.float32)
    image[0, 5, 9] = 1.0
    # Pixel (row, column) reads (row + 2, column + 4).
    flow = jnp.broadcast_to(jnp.asarray([4.0, 2.0]) * 2 / 15, (1, 16, 16, 2))
    warped = warp_by_flow(jnp.asarray(image), flow, align_corners=True)[0, :, :, 0]
    expected = np.zeros((16, 16))
    expected[3, 5] = 1.0
    np.testing.assert_allclose(warped, expected, atol=1e-5)


def test_flow_head_predicts_pixels_of_the_doubled_grid():
    head = FlowHead(3)
    x = jnp.ones((1, 4, 6, 3))
    variables = head.init(jax.random.key(0), x, train=False)
    params = {"conv": {"kernel": jnp.zeros((3, 3, 3, 2)), "bias": jnp.asarray([3.0, -2.0])}}
    assert jax.tree.structure(variables["params"]) == jax.tree.structure(params)
    flow = head.apply({"params": params}, x, train=False)
    assert flow.shape == (1, 8, 12, 2)
    np.testing.assert_allclose(flow[0, 5, 7], [2 * 3.0 / 11, 2 * -2.0 / 7], rtol=1e-6)


def test_guided_norm_is_batch_norm_modulated_by_the_map():
    module = GuidedNorm(3, guidance_features=2, hidden_features=4, spectral_norm=False)
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (2, 5, 5, 3)).astype(np.float32)
    maps = rng.normal(1.0, 1.0, (2, 5, 5, 2)).astype(np.float32)
    variables = module.init(jax.random.key(0), x, maps, train=False)
    assert "norm" not in variables["params"]  # no scale and bias of its own
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables["params"])
    # Only middle taps: the map's first channel goes to the first hidden one, the second likewise.
    params["shared"]["kernel"][1, 1] = np.eye(2, 4)
    params["shared"]["bias"][:] = -1.0
    params["gamma"]["kernel"][1, 1] = np.eye(4, 3)
    params["gamma"]["bias"][:] = [1.0, 0.0, -1.0]
    params["beta"]["kernel"][1, 1] = 2.0 * np.eye(4, 3)[:, ::-1]
    params["beta"]["bias"][:] = [0.5, 0.0, 2.0]
    found, _ = module.apply(
        variables | {"params": params}, x, maps, train=True, mutable=["batch_stats"]
    )
    flat = x.reshape(-1, 3).astype(np.float64)
    normal = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    shared = np.concatenate([maps, np.zeros_like(maps[..., :1])], axis=-1) - 1.0
    hidden = np.where(shared > 0, shared, 0.1 * shared)
    assert 0.2 < (shared[..., :2] > 0).mean() < 0.8  # both sides of the leaky ReLU
    expected = normal * (1 + hidden + [1, 0, -1]) + (2 * hidden[..., ::-1] + [0.5, 0, 2])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_modulation_is_codes_then_flow():
    """The order of the released weights: an exchange of channels would go unnoticed elsewhere."""
    rng = np.random.default_rng(0)
    flow, codes, other = (rng.random((1, 2, 3, n)).astype(np.float32) for n in (2, 4, 4))
    maps = GuidanceMaps(flow=flow, driving_codes=codes, source_codes=other).modulation()
    assert maps.shape == (1, 2, 3, 6)
    for channel in range(4):
        np.testing.assert_array_equal(maps[..., channel], codes[..., channel])
    for axis in range(2):
        np.testing.assert_array_equal(maps[..., 4 + axis], flow[..., axis])
    alone = GuidanceMaps(flow=flow).modulation(), GuidanceMaps(driving_codes=codes).modulation()
    np.testing.assert_array_equal(alone[0], flow)
    np.testing.assert_array_equal(alone[1], codes)


@pytest.mark.parametrize(
    ("guidance", "encoder_width", "guidance_width"),
    [("geometry", 3, 2), ("codes", 7, 4), ("both", 7, 6), ("nmfc", 6, 3)],
)
def test_every_guidance_trains_from_meshes(
    mesh, faces_of_two, guidance, encoder_width, guidance_width
):
    model = tiny_gdpw(mesh, guidance=guidance, generator={"num_levels": 3})
    generator = model.networks["generator"]
    variables = random_variables(model)["generator"]
    params = variables["params"]
    assert params["encoder"]["down_1"]["conv"]["kernel"].shape[2] == encoder_width
    shared = params["decoder"]["level_4"]["spade"]["norm_0"]["shared"]["kernel"]
    assert shared.shape[2] == guidance_width
    assert ("codes" in params) == (guidance in ("codes", "both"))
    source, driving = faces_of_two
    collections = {key: tree for key, tree in variables.items() if key != "params"}

    def loss(params):
        meshes = model.guidance(source.vertices, driving.vertices)
        assert isinstance(meshes, MeshPair)
        frame, updated = generator.apply(
            {"params": params, **collections},
            source.image,
            meshes,
            train=True,
            mutable=list(collections),
        )
        return jnp.abs(frame["prediction"] - driving.image).mean(), (frame, updated)

    step = jax.value_and_grad(loss, has_aux=True)
    (_, (frame, _)), gradients = jax.eval_shape(step, params)
    assert frame["prediction"].shape == (2, SIZE, SIZE, 3)
    assert [flow.shape[1:] for flow in frame["flows"]] == [(16, 16, 2), (32, 32, 2)]
    assert [image.shape[1] for image in frame["warped_sources"]] == [16, 32]
    assert jax.tree.structure(gradients) == jax.tree.structure(params)
    if guidance != "both":
        return  # numbers once: compiling a gradient takes long
    (_, (frame, updated)), gradients = jax.jit(step)(params)
    assert frame["prediction"].min() >= 0 and frame["prediction"].max() <= 1
    np.testing.assert_array_equal(frame["warped_sources"][-1], frame["deformed"])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), updated, collections)
    assert min(jax.tree.leaves(moved)) > 0  # every statistic and singular vector
    used = jax.tree.map(lambda g: float(jnp.abs(g).max()), gradients)
    assert used["codes"] > 0
    assert used["decoder"]["level_4"]["flow"]["conv"]["kernel"] > 0


@pytest.fixture(scope="module")
def both(mesh):
    """The tiny system with both guidances, and its variables."""
    model = tiny_gdpw(mesh, generator={"num_levels": 2}, alpha_blend=True)
    return model, random_variables(model)


def run(model, variables, source, driving):
    def animate(variables, source, driving):
        encoding = model.encode_source(variables, source)
        motion = model.encode_driving(variables, driving)
        return model.animate_frame(variables, encoding, motion, with_intermediates=True)

    return jax.jit(animate)(variables, source, driving)


def test_protocol_equals_the_generator_and_blends_by_alpha(both, faces_of_two):
    model, variables = both
    source, driving = faces_of_two
    mesh_only = FaceInputs(vertices=driving.vertices)  # the driving image is not needed
    frame = run(model, variables, source, mesh_only)
    whole = jax.jit(
        lambda v: model.networks["generator"].apply(
            v["generator"],
            source.image,
            model.guidance(source.vertices, driving.vertices),
            train=False,
        )
    )(variables)
    np.testing.assert_allclose(frame.prediction, whole["prediction"], atol=1e-6)
    extras = frame.intermediates
    assert {"alpha", "deformed", "flows", "mesh_flow", "driving_codes"} <= set(extras)
    # One source of batch 1 serves both frames.
    first = jax.tree.map(lambda x: x[:1], source)
    alone = run(model, variables, first, mesh_only)
    np.testing.assert_allclose(alone.prediction[0], frame.prediction[0], atol=1e-5)
    # The blend.
    plain = tiny_gdpw(model.mesh.name, generator={"num_levels": 2})
    rgb = run(plain, variables, source, mesh_only).prediction
    alpha = extras["alpha"]
    assert 0.05 < alpha.mean() < 0.95
    expected = alpha * rgb + (1 - alpha) * extras["deformed"]
    np.testing.assert_allclose(frame.prediction, expected, atol=1e-5)
    assert np.abs(rgb - frame.prediction).max() > 0.05
    # The residual of the small configs.
    added = tiny_gdpw(model.mesh.name, generator={"num_levels": 2, "residual": True})
    found = run(added, variables, source, mesh_only).prediction
    expected = np.clip(extras["deformed"] + 2 * np.asarray(rgb) - 1, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_plain_and_fast_and_bfloat16_agree(both, faces_of_two):
    model, variables = both
    source, driving = faces_of_two
    arguments = model.arguments()
    fast = run(model, variables, source, driving)
    plain = ProgressiveWarping(**arguments | {"implementation": "plain"})
    literal = run(plain, variables, source, driving)
    np.testing.assert_allclose(fast.prediction, literal.prediction, atol=2e-5)
    half = ProgressiveWarping(**arguments | {"dtype": "bfloat16"})
    rounded = run(half, variables, source, driving)
    assert rounded.prediction.dtype == jnp.float32
    assert all(flow.dtype == jnp.float32 for flow in rounded.intermediates["flows"])
    difference = np.abs(np.asarray(rounded.prediction) - fast.prediction)
    # Eight bits of mantissa through a dozen layers, and a warped image of noise.
    assert 1e-4 < difference.mean() < 0.03


def test_single_scale_warps_every_level_by_one_flow(mesh, faces_of_two):
    model = tiny_gdpw(mesh, single_scale=True)
    variables = random_variables(model)
    params = variables["generator"]["params"]["decoder"]
    assert not any("flow" in params[f"level_{s}"] for s in (8, 4, 2))
    assert set(params["displacement"]) == {"level_8", "spade", "flow"}  # stride 4 predicts
    frame = run(model, variables, *faces_of_two)
    (flow,) = frame.intermediates["flows"]
    assert flow.shape == (2, SIZE, SIZE, 2)
    (warped,) = frame.intermediates["warped_sources"]
    np.testing.assert_allclose(
        warped,
        warp_by_flow(jnp.asarray(faces_of_two[0].image), flow, align_corners=False),
        atol=1e-5,
    )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("side", [4, 8, 32])
def test_resize_flow_points_to_the_same_places(side, align_corners):
    """A picture that grows along both axes, moved by the same part of the image at every size."""

    def ramp(n):
        return np.indices((n, n), np.float32).transpose(1, 2, 0)[None] / n + 0.5 / n

    moved = resize_flow(
        _flow_of((2 / 16, 1 / 16), 16, align_corners), side, align_corners=align_corners
    )
    seen = warp_by_flow(jnp.asarray(ramp(side)), moved, align_corners=align_corners)
    inner = slice(0, side - side // 8 - 1)  # what comes from outside the picture is zero
    expected = ramp(side) + np.asarray([1 / 16, 2 / 16], np.float32)
    # float32 positions of up to 32 pixels, in pictures of size one.
    np.testing.assert_allclose(seen[:, inner, inner], expected[:, inner, inner], atol=1e-5)


def _flow_of(displacement, side, align_corners):
    """The flow that reads, at every pixel, what lies so far away, as a part of the image."""
    wanted = np.indices((side, side))[::-1].transpose(1, 2, 0) + np.asarray(displacement) * side
    grid = 2 * np.indices((side, side))[::-1].transpose(1, 2, 0) / (side - 1) - 1
    places = 2 * wanted / (side - 1) - 1 if align_corners else (2 * wanted + 1) / side - 1
    return jnp.asarray((places - grid)[None], jnp.float32)


@pytest.mark.parametrize(
    "guidance, warps", [("codes", False), ("nmfc", False), ("geometry", True), ("both", True)]
)
def test_the_bottleneck_is_warped_where_a_displacement_is_drawn(mesh, guidance, warps):
    model = tiny_gdpw(mesh, guidance=guidance, generator={"bottleneck_warp": None})
    bound = model.networks["generator"].bind(random_variables(model)["generator"])
    assert bound.decoder.bottleneck_warp is warps


def test_mesh_flow_moves_the_bottleneck_by_its_displacement():
    """A field of a quarter of the image, on a bottleneck of four pixels: one pixel."""
    decoder = ProgressiveDecoder((4, 4, 4), 2, align_corners=True)
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 3))
    pair = decoder.apply({}, x, jnp.full((1, 4, 4, 2), 0.5), method="_beside_itself")
    np.testing.assert_allclose(pair[..., :3], x, atol=0)
    np.testing.assert_allclose(pair[0, :3, :3, 3:], x[0, 1:, 1:], atol=1e-6)


def test_flows_that_correct_nothing_follow_the_mesh(mesh, faces_of_two):
    """Silent flow heads leave the drawn displacement, in the unit of the sampler's corner rule."""
    options = {"num_levels": 2, "flow_correction": True, "finest_block": True}
    source, driving = faces_of_two
    for aligned, unit in ((True, SIZE / (SIZE - 1)), (False, 1.0)):
        model = tiny_gdpw(
            mesh, guidance="geometry", generator={**options, "align_corners": aligned}
        )
        variables = random_variables(model)
        decoder = variables["generator"]["params"]["decoder"]
        assert "finest" in decoder
        heads = decoder["level_2"]
        heads["flow"] = jax.tree.map(jnp.zeros_like, heads["flow"])
        maps = model.networks["generator"].apply(
            variables["generator"], source.vertices, driving.vertices, method="draw_driving"
        )
        frame = run(model, variables, source, driving)
        expected = unit * np.asarray(maps.flow)
        assert np.abs(expected).max() > 0.05
        np.testing.assert_allclose(frame.intermediates["flows"][-1], expected, atol=1e-6)


def test_finest_block_is_guided_at_the_size_of_the_picture(mesh):
    """A guidance that alternates pixel by pixel is all but lost at half the size."""
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.random((1, SIZE, SIZE, 3)), jnp.float32)
    board = np.indices((SIZE, SIZE)).sum(axis=0) % 2 * 2.0 - 1.0
    codes = np.broadcast_to(board[None, ..., None], (1, SIZE, SIZE, 4)).astype(np.float32)
    seen = {}
    for finest in (True, False):
        model = tiny_gdpw(
            mesh, guidance="codes", generator={"num_levels": 2, "finest_block": finest}
        )
        variables = random_variables(model)["generator"]
        generator = model.networks["generator"]
        apply = jax.jit(
            lambda v, driving, g=generator: g.apply(
                v, image, GuidanceMaps(driving_codes=driving, source_codes=codes), train=False
            )["prediction"]
        )
        seen[finest] = np.abs(apply(variables, codes) - apply(variables, -codes)).mean()
    assert seen[True] > 3 * seen[False]  # the blur before stride 2 lets some of it through


def test_codes_start_between_zero_and_code_start(mesh):
    options = {"num_levels": 2, "code_start": 0.25}
    model = tiny_gdpw(mesh, guidance="codes", generator=options)
    # Compiled, nothing but the codes is computed.
    drawn = jax.jit(lambda key: model.init(key, ("generator",))["generator"]["params"]["codes"])
    codes = np.asarray(drawn(jax.random.key(0)))
    assert codes.min() >= 0 and 0.2 < codes.max() <= 0.25


def test_arguments_survive_json(both):
    model, _ = both
    copy = build_model("gdpw", **json.loads(json.dumps(model.arguments())))
    assert copy.arguments() == model.arguments()
    assert dict(copy.networks) == dict(model.networks)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"guidance": "flow"}, ArgumentError, "guidance"),
        ({"dtype": "float16"}, ArgumentError, "dtype"),
        ({"num_codes": 0}, ArgumentError, "positive"),
        ({"generator": {"mesh": "ict"}}, ConfigError, "mesh"),
        ({"discriminator": {"scales": [1.0]}}, ConfigError, "strides"),
    ],
)
def test_model_refuses_wrong_arguments(mesh, changes, error, message):
    with pytest.raises(error, match=message):
        tiny_gdpw(mesh, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"generator": {"num_levels": 7}},
        {"single_scale": True, "generator": {"flow_stride": 16}},
        {"alpha_blend": True, "generator": {"residual": True}},
        {"guidance": "codes", "generator": {"flow_correction": True}},
        {"single_scale": True, "generator": {"flow_correction": True}},
    ],
)
def test_generator_refuses_what_does_not_fit_together(mesh, changes):
    model = tiny_gdpw(mesh, **changes)
    with pytest.raises(ArgumentError, match=r"num_levels|flow_stride|residual|flow_correction"):
        jax.eval_shape(model.init, jax.random.key(0))


def test_missing_and_foreign_vertices_are_named(both, faces_of_two):
    model, variables = both
    source, driving = faces_of_two
    with pytest.raises(ArgumentError, match="source face"):
        model.encode_source(variables, source._replace(vertices=None))
    with pytest.raises(ArgumentError, match="have vertices"):
        model.encode_driving(variables, driving._replace(vertices=None))
    with pytest.raises(ArgumentError, match="vertices of the source face"):
        model.encode_source(variables, source._replace(vertices=jnp.zeros((2, 5, 3))))


@pytest.mark.parametrize("guidance", ["codes", "both"])
def test_codes_of_another_mesh_are_refused_where_meshes_are_drawn(mesh, faces_of_two, guidance):
    """Unchecked they would be drawn all the same, each vertex with the code of some other."""
    count = len(ball_mesh()[0])
    options = {"num_levels": 2, "block_expansion": 2}
    generator, variables = _shapes_of(
        tiny_gdpw(mesh, guidance=guidance, num_vertices=count + 1, generator=options)
    )
    assert variables["params"]["codes"].shape == (count + 1, 4)
    source, driving = faces_of_two
    both = source.vertices, driving.vertices
    message = rf"num_vertices must be {count}, as mesh '.*ball\.npz', got {count + 1}"
    for method, arguments in (
        ("draw", both),
        ("draw_driving", both),
        ("draw_source", both[:1]),
    ):
        with pytest.raises(ArgumentError, match=message):
            jax.eval_shape(
                lambda v, a=arguments, m=method: generator.apply(v, *a, method=m), variables
            )
    with pytest.raises(ArgumentError, match=message):
        jax.eval_shape(
            lambda v: generator.apply(v, source.image, MeshPair(*both), train=False), variables
        )


@pytest.mark.parametrize("guidance", ["codes", "both"])
def test_drawn_maps_need_no_mesh_file(tmp_path, faces_of_two, guidance):
    """Converted weights can be compared on drawn maps where the licensed mesh is absent."""
    options = {"num_levels": 2, "block_expansion": 2}
    absent = str(tmp_path / "absent.npz")
    generator, variables = _shapes_of(
        tiny_gdpw(absent, guidance=guidance, num_vertices=7, generator=options)
    )
    source, driving = faces_of_two
    flow, codes = jnp.zeros((2, SIZE, SIZE, 2)), jnp.zeros((2, SIZE, SIZE, 4))
    maps = GuidanceMaps(flow if guidance == "both" else None, codes, codes)

    def animate(guidance):
        return jax.eval_shape(
            lambda v: generator.apply(v, source.image, guidance, train=False), variables
        )

    assert animate(maps)["prediction"].shape == (2, SIZE, SIZE, 3)
    with pytest.raises(ArgumentError, match=r"absent\.npz"):
        animate(MeshPair(source.vertices, driving.vertices))


def _shapes_of(model):
    """The generator and the shapes of its variables."""
    shapes = jax.eval_shape(lambda key: model.init(key, ("generator",)), jax.random.key(0))
    return model.networks["generator"], shapes["generator"]


def test_panels_are_pictures(both, faces_of_two):
    model, variables = both
    pictures = jax.jit(model.panels)(variables, FramePair(*faces_of_two))
    assert {"driving_codes", "mesh_flow", "flow", "deformed", "prediction"} <= set(pictures)
    for name, picture in pictures.items():
        assert picture.shape == (2, SIZE, SIZE, 3), name
        assert picture.min() >= 0 and picture.max() <= 1, name
