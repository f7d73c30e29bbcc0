"""How the evaluation probe learns: frames of synthetic people, damaged a little, and their truth.

Generated pictures are blurred, noisy and off in colour, so the probe sees such pictures too; and
because a person of the set always stands before the same background, it is replaced, or the
identity would be read from it. Letters: b batch, h w image, n frames, d features.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from talking_heads_jax.errors import DataError, requirement
from talking_heads_jax.evaluation.clips import Clip, as_unit_float
from talking_heads_jax.metrics.probe_errors import (
    angle_distance,
    expression_distance,
    landmark_distance,
)
from talking_heads_jax.networks.probe import (
    PROBE_SIDE,
    Probe,
    ProbeNetwork,
    ProbeOutputs,
    expression_vector,
    run_probe,
)
from talking_heads_jax.typing import Array, Float, Int, PyTree

TARGETS = ("landmarks", "angles", "expression")
# Landmarks first: they are the column most looked at. The contrastive loss is about 4 at first.
_WEIGHTS = {"landmarks": 3.0, "angles": 1.0, "expression": 1.0, "identity": 0.25}
_TEMPERATURE = 0.1
_REPLACED_BACKGROUNDS = 0.7  # shares of the pictures
_BLURRED = 0.5
_LARGEST_SIGMA_PX = 1.6
# A Gaussian this narrow stands in for linear interpolation: between two pixels it takes their mean,
# on a pixel it is that pixel to 2 %.
_INTERPOLATION_PX = 0.35
_LARGEST_SHIFT = 0.06  # of the width
_LARGEST_ZOOM = 0.1
_LARGEST_GAIN = 0.15
_LARGEST_TINT = 0.1
_LARGEST_NOISE = 0.04
_WARMUP_STEPS = 100
_NO_DEVIATION = 0.02  # coefficients, radians or widths: what varies less counts as constant


class ProbeFrames(NamedTuple):
    """Frames with their truth, all in memory.

    Attributes:
      images: (n 64 64 3) uint8.
      foreground: (n 64 64 1) float32, 0 for background.
      landmarks: (n 68 2) over width and height.
      angles: (n 3) radians.
      expression: (n d) see `networks.probe.expression_vector`.
      person: (n) int, who is shown.
    """

    images: Any
    foreground: Any
    landmarks: Any
    angles: Any
    expression: Any
    person: Any


def read_frames(clips: Mapping[str, Clip]) -> ProbeFrames:
    """Reads all frames of clips of the probe's size.

    Args:
      clips: by name, 64 px.

    Raises:
      DataError: a clip lacks a column.
    """
    rows: list[tuple[np.ndarray, ...]] = []
    people: list[int] = []
    numbers = {person: i for i, person in enumerate(sorted({c.person for c in clips.values()}))}
    for clip in clips.values():
        columns = (clip.masks, clip.landmarks, clip.angles, clip.expression_coeffs)
        if any(column is None for column in columns):
            raise DataError(
                requirement(
                    f"clip '{clip.clip_id}'",
                    "have masks, landmarks, angles and expressions",
                    "less",
                    "Make the data set with `talking-heads synthesize`.",
                )
            )
        masks, landmarks, angles, expressions = (list(column) for column in columns if column)
        poses = clip.joint_pose or [None] * len(masks)
        for number, image in enumerate(clip.frames):
            expression = expression_vector(expressions[number], poses[number])
            shown = (masks[number] != 0)[..., None].astype(np.float32)
            points = np.float32(landmarks[number]) / PROBE_SIDE
            rows.append((image, shown, points, np.float32(angles[number]), expression))
            people.append(numbers[clip.person])
    columns = tuple(np.stack(column) for column in zip(*rows, strict=True))
    return ProbeFrames(*columns, np.asarray(people))


def target_statistics(frames: ProbeFrames) -> dict[str, np.ndarray]:
    """Mean and deviation of each target; landmarks share one deviation, so that all weigh alike.

    Args:
      frames: of the training.
    """
    statistics = {}
    for name in TARGETS:
        values = np.asarray(getattr(frames, name), np.float64)
        mean = values.mean(axis=0)
        spread = np.sqrt(np.square(values - mean).mean(axis=0))
        if name == "landmarks":
            spread = np.sqrt(np.mean(spread**2))
        statistics[f"{name}_mean"] = np.float32(mean)
        statistics[f"{name}_deviation"] = np.float32(np.where(spread < _NO_DEVIATION, 0, spread))
    return statistics


def draw_batches(
    person: np.ndarray, *, people: int, frames: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields numbers of frames: some of each of several people, for ever.

    Args:
      person: (n) who is shown.
      people: of a batch, at most as many as there are.
      frames: of each of them.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(person, kind="stable")
    starts = np.searchsorted(person[order], np.arange(person.max() + 2))
    while True:
        chosen = rng.choice(person.max() + 1, people, replace=False)
        yield np.concatenate(
            [
                order[rng.choice(np.arange(starts[i], starts[i + 1]), frames, replace=False)]
                if starts[i + 1] - starts[i] >= frames
                else order[rng.integers(starts[i], starts[i + 1], frames)]
                for i in chosen
            ]
        )


def damage(
    key: Array,
    images: Float[Array, "b 64 64 3"],
    foreground: Float[Array, "b 64 64 1"],
    landmarks: Float[Array, "b 68 2"],
) -> tuple[Float[Array, "b 64 64 3"], Float[Array, "b 68 2"]]:
    """Other backgrounds, small shifts and zooms, colour gains, blur and noise.

    Args:
      key: of all draws.
      images: in [0, 1].
      foreground: 0 where the background may be replaced.
      landmarks: over width and height; they move with the picture.

    Returns:
      Pictures in [0, 1], and the landmarks in them.
    """
    count = images.shape[0]
    keys = iter(jax.random.split(key, 11))

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Array:
        return jax.random.uniform(next(keys), (count, *shape), minval=low, maxval=high)

    coarse = uniform((4, 4, 3), 0.0, 1.0)
    colours = jax.image.resize(coarse, images.shape, "linear")
    background = jnp.where(uniform((1, 1, 1), 0, 1) < 0.5, colours, images[::-1, :, ::-1])
    replaced = uniform((1, 1, 1), 0, 1) < _REPLACED_BACKGROUNDS
    images = jnp.where(replaced & (foreground == 0), background, images)

    zoom = 1.0 + uniform((1, 1), -_LARGEST_ZOOM, _LARGEST_ZOOM)
    shift = uniform((1, 2), -_LARGEST_SHIFT, _LARGEST_SHIFT)
    sigma = uniform((1,), 0.0, _LARGEST_SIGMA_PX) * (uniform((1,), 0, 1) < _BLURRED)
    landmarks = (landmarks - 0.5) * zoom + 0.5 + shift
    places = (jnp.arange(PROBE_SIDE) + 0.5) / PROBE_SIDE
    origin = (places[None, :, None] - 0.5 - shift) / zoom + 0.5  # (b 64 2): x and y are apart
    images = _resample(images, PROBE_SIDE * origin, sigma)

    images = images * (1.0 + uniform((1, 1, 1), -_LARGEST_GAIN, _LARGEST_GAIN))
    images = images * (1.0 + uniform((1, 1, 3), -_LARGEST_TINT, _LARGEST_TINT))
    noise = jax.random.normal(next(keys), images.shape)
    images = images + noise * uniform((1, 1, 1), 0.0, _LARGEST_NOISE)
    return jnp.clip(images, 0.0, 1.0), landmarks


def _resample(
    images: Float[Array, "b h w c"], origin: Float[Array, "b n 2"], sigma: Float[Array, "b 1"]
) -> Float[Array, "b n n c"]:
    """Pictures at other places, blurred; rows and columns one after the other.

    Args:
      images: square.
      origin: x of every column and y of every row, in pixels of `images`; outside them the border
        continues.
      sigma: of the blur, in pixels.
    """
    side = images.shape[1]
    pixels = jnp.arange(side) + 0.5
    origin = jnp.clip(origin, 0.5, side - 0.5)
    width = jnp.sqrt(jnp.square(sigma) + _INTERPOLATION_PX**2)[:, :, None, None]
    weights = jnp.exp(-0.5 * jnp.square((origin[:, :, :, None] - pixels) / width))
    weights = weights / weights.sum(axis=-1, keepdims=True)  # (b n 2 side)
    images = jnp.einsum("bnh,bhwc->bnwc", weights[:, :, 1], images)
    return jnp.einsum("bmw,bnwc->bnmc", weights[:, :, 0], images)


def contrastive_loss(embedding: Float[Array, "b d"], person: Int[Array, " b"]) -> Float[Array, ""]:
    """Pulls pictures of one person together and pushes all others away.

    Args:
      embedding: of any length.
      person: who is shown.

    Source: Khosla et al., Supervised Contrastive Learning (NeurIPS 2020), Eq. 2.
    """
    length = jnp.sqrt(jnp.square(embedding).sum(axis=-1, keepdims=True) + 1e-12)
    unit = embedding / length
    others = ~jnp.eye(len(person), dtype=bool)
    logits = jnp.where(others, unit @ unit.T / _TEMPERATURE, -jnp.inf)
    log_share = logits - jax.nn.logsumexp(logits, axis=1, keepdims=True)
    same = others & (person[:, None] == person[None])
    found = jnp.where(same, log_share, 0.0).sum(axis=1) / jnp.maximum(same.sum(axis=1), 1)
    return -found.mean()


def make_step(
    statistics: Mapping[str, np.ndarray], *, learning_rate: float, num_steps: int
) -> tuple[Callable[[Array], tuple[PyTree, PyTree]], Callable[..., tuple[PyTree, PyTree, PyTree]]]:
    """The training step and its initial state.

    Args:
      statistics: of the targets.
      learning_rate: the highest, after a warm-up; it falls to zero along a cosine.
      num_steps: of the training.

    Returns:
      key -> (params, optimizer state); and (params, state, key, batch of `ProbeFrames`) ->
      (params, state, losses), compiled.
    """
    network = ProbeNetwork(len(statistics["expression_mean"]))
    warmup = min(_WARMUP_STEPS, num_steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, num_steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-3)
    )

    @jax.jit
    def initial(key: Array) -> tuple[PyTree, PyTree]:
        params = network.init(key, jnp.zeros((1, PROBE_SIDE, PROBE_SIDE, 3)))["params"]
        return params, optimizer.init(params)

    def losses_of(params: PyTree, key: Array, batch: ProbeFrames) -> tuple[Array, dict]:
        images = batch.images.astype(jnp.float32) / 255.0
        images, landmarks = damage(key, images, batch.foreground, batch.landmarks)
        seen: ProbeOutputs = network.apply({"params": params}, images)
        losses = {"identity": contrastive_loss(seen.embedding, batch.person)}
        for name, truth in zip(TARGETS, (landmarks, batch.angles, batch.expression), strict=True):
            deviation = jnp.asarray(statistics[f"{name}_deviation"])
            varies = deviation > 0
            wanted = (truth - statistics[f"{name}_mean"]) / jnp.where(varies, deviation, 1.0)
            difference = jnp.where(varies, jnp.abs(getattr(seen, name) - wanted), 0.0)
            # Most expressions are at rest most of the time: the absolute error's answer, their
            # median, is to see none at all.
            losses[name] = (jnp.square(difference) if name == "expression" else difference).mean()
        total = sum(_WEIGHTS[name] * value for name, value in losses.items())
        return total, {**losses, "total": total}

    @jax.jit
    def step(
        params: PyTree, state: PyTree, key: Array, batch: ProbeFrames
    ) -> tuple[PyTree, PyTree, PyTree]:
        gradient, losses = jax.grad(losses_of, has_aux=True)(params, key, batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, losses

    return initial, step


def own_errors(probe: Probe, frames: ProbeFrames, *, batch_size: int = 64) -> dict[str, float]:
    """What a probe gets wrong on true pictures, as the metrics of its columns.

    Args:
      probe: trained.
      frames: of people it has not seen.
      batch_size: pictures per call.

    Returns:
      `probe_landmarks_px`, `probe_angles_deg`, `probe_expression`; `probe_identity`, the mean
      cosine between two frames of one person; `other_person`, that between two people; and
      `nearest_is_same`, the share of frames whose nearest other frame shows the same person.
    """
    look = jax.jit(run_probe)
    seen: list[ProbeOutputs] = []
    for start in range(0, len(frames.images), batch_size):
        images = as_unit_float(frames.images[start : start + batch_size])
        padded = np.concatenate([images, np.zeros_like(images[:1]).repeat(batch_size, 0)])
        outputs = look(probe.params, dict(probe.statistics), padded[:batch_size])
        seen.append(ProbeOutputs(*(np.asarray(column)[: len(images)] for column in outputs)))
    found = ProbeOutputs(*(np.concatenate(column) for column in zip(*seen, strict=True)))
    deviation = probe.statistics["expression_deviation"]
    cosines = found.embedding @ found.embedding.T
    others = ~np.eye(len(cosines), dtype=bool)
    same = frames.person[:, None] == frames.person[None]
    nearest = np.where(others, cosines, -2.0).argmax(axis=1)
    values = {
        "probe_landmarks_px": landmark_distance(found.landmarks, frames.landmarks).mean(),
        "probe_angles_deg": angle_distance(found.angles, frames.angles).mean(),
        "probe_expression": expression_distance(
            found.expression, frames.expression, deviation
        ).mean(),
        "probe_identity": cosines[same & others].mean(),
        "other_person": cosines[~same].mean(),
        "nearest_is_same": (frames.person[nearest] == frames.person).mean(),
    }
    return {name: float(value) for name, value in values.items()}
