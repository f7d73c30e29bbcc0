"""A ball of a mesh, and GDPW systems small enough to test: full structure, 32 px, few channels."""

import numpy as np

from talking_heads_jax.conversion.translate import target_shapes
from talking_heads_jax.models.gdpw.model import ProgressiveWarping
from talking_heads_jax.serialization.tensors import unflatten

SIZE = 32


def ball_mesh(rows=9, columns=12):
    """Template (v 3) in model space (+y up, +z out of the nose) and faces, counter-clockwise."""
    polar = np.linspace(0, np.pi, rows + 1)[1:-1, None]
    azimuth = np.arange(columns) * 2 * np.pi / columns
    rings = np.stack(
        np.broadcast_arrays(
            np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)
        ),
        axis=-1,
    )
    points = np.concatenate([rings.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]])
    top, bottom = len(points) - 2, len(points) - 1
    here = np.arange(columns)
    there = (here + 1) % columns
    faces = [np.stack([np.full(columns, top), here, there], axis=1)]
    for ring in range(rows - 2):
        a, b = ring * columns + here, ring * columns + there
        faces += [np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)]
    last = (rows - 2) * columns
    faces.append(np.stack([np.full(columns, bottom), last + there, last + here], axis=1))
    points = points * [0.8, 1.0, 0.9] * (1 + 0.1 * points[:, 1:2])
    return points.astype(np.float32), np.concatenate(faces).astype(np.int32)


def write_mesh(folder):
    """The ball as a mesh file; returns its path as text."""
    template, faces = ball_mesh()
    path = folder / "ball.npz"
    np.savez(path, v_template=template, faces=faces)
    return str(path)


def crop_vertices(template, *, yaw_deg=0.0, size=SIZE, batch=1, shift=(0.0, 0.0)):
    """(batch v 3) in crop pixels: x right, y down, z smaller nearer; `yaw_deg` turns the head."""
    angle = np.radians(yaw_deg)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    points = template @ turn.T * [1, -1, -1] * (0.36 * size)
    points[:, :2] += np.asarray(shift) + size / 2
    return np.repeat(points[None], batch, axis=0).astype(np.float32)


def tiny_gdpw(mesh, **changes):
    """A tiny system on a mesh; `changes` update its arguments, `generator` key by key."""
    generator = {"num_levels": 4, "block_expansion": 4, "max_features": 16}
    arguments = {
        "resolution": SIZE,
        "guidance": "both",
        "num_codes": 4,
        "morphable": mesh,
        "discriminator": {"block_expansion": 4, "max_features": 8, "num_blocks": 2},
        "generator": generator | changes.pop("generator", {}),
    }
    return ProgressiveWarping(**arguments | changes)


def random_variables(model, networks=("generator",), seed=0):
    """Variables of plausible sizes without compiling an initialiser: {network: variables}."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        collection, name = path.split("/")[0], path.split("/")[-1]
        if collection == "spectral":
            vector = rng.normal(size=leaf.shape)
            return (vector / np.linalg.norm(vector)).astype(leaf.dtype)
        if name in ("var", "codes", "scale"):
            return rng.uniform(0.5, 1.0, leaf.shape).astype(leaf.dtype)
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)

    variables = {
        network: unflatten({path: draw(path, leaf) for path, leaf in shapes.items()})
        for network, shapes in target_shapes(model, networks).items()
    }
    for trees in variables.values():
        settle(trees["params"], trees.get("spectral", {}))
    return variables


def settle(params, vectors):
    """Power iterations: random vectors would make the divisor of a kernel nearly zero."""
    for key, child in vectors.items():
        if "u" not in child:
            settle(params[key], child)
            continue
        kernel = params[key]["kernel"]
        matrix = kernel.reshape(-1, kernel.shape[-1]).T
        u = child["u"]
        for _ in range(3):
            v = matrix.T @ u
            v /= np.linalg.norm(v)
            u = matrix @ v
            u /= np.linalg.norm(u)
        child["u"], child["v"] = u, v.reshape(child["v"].shape)
