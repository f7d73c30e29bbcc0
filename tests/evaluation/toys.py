"""A model whose answers can be worked out by hand, and clips of noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs.eval import (
    cross_identity,
    cross_identity_relative,
    random_pairs,
    reconstruction,
    reconstruction_fomm,
    synthetic_cross,
    synthetic_same,
)
from talking_heads_jax.batch import Keypoints
from talking_heads_jax.evaluation.answers import MODEL_ROW, CheckpointAnswer
from talking_heads_jax.evaluation.clips import Clip
from talking_heads_jax.evaluation.pairs import build_pairs
from talking_heads_jax.evaluation.protocols import Protocol
from talking_heads_jax.evaluation.runner import evaluate_pairs
from talking_heads_jax.models.base import FrameOutput, TalkingHead
from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.networks.probe import PROBE_SIDE, Probe, ProbeNetwork

CONFIGS = {
    module.__name__.rsplit(".", 1)[-1]: module
    for module in (
        *(reconstruction, reconstruction_fomm, random_pairs),
        *(cross_identity, cross_identity_relative),
        *(synthetic_same, synthetic_cross),
    )
}


class Halfway(TalkingHead):
    """Predicts the mean of source and driving: better than copying, worse than knowing."""

    name = "halfway"
    inference_networks = ()

    def __init__(self, resolution: int = 16) -> None:
        self.resolution = resolution

    @property
    def networks(self):
        return {}

    def arguments(self):
        return {}

    def init(self, rng, names=None):
        return {}

    def encode_source(self, variables, source):
        return {"image": source.image, "level": jnp.asarray(0.5)}

    def encode_driving(self, variables, driving):
        return driving.image

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        level = source_encoding["level"]
        return FrameOutput(level * source_encoding["image"] + (1 - level) * motion, {})


class Shifted(Halfway):
    """Its keypoints are colours of the image's corners; adds their movement to the source."""

    name = "shifted"

    def encode_source(self, variables, source):
        return source.image

    def encode_driving(self, variables, driving):
        image = driving.image
        value = jnp.stack([image[:, 0, 0, :2], image[:, 0, -1, :2], image[:, -1, 0, :2]], axis=1)
        return Keypoints(value, None)

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        shift = motion.value.mean(axis=(1, 2))[:, None, None, None]
        return FrameOutput(source_encoding * 0 + shift, {})


def noise_clips(lengths=(6, 4, 9), size=16, *, masks=False):
    """One clip per length, of random bytes; every person has two clips."""
    clips = {}
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        frames = rng.integers(0, 256, (length, size, size, 3), dtype=np.uint8)
        shown = (rng.uniform(size=(length, size, size)) > 0.4).astype(np.uint8)
        name = f"clip{number}"
        clips[name] = Clip(name, frames, f"person{number // 2}", shown if masks else None)
    return clips


def faces(lengths=(5, 4, 6), size=16):
    """Clips of noise, one per person, with masks of parts and all columns of a synthetic set."""
    clips = {}
    for number, length in enumerate(lengths):
        rng = np.random.default_rng([7, number])
        masks = rng.integers(0, len(PARTS), (length, size, size), dtype=np.uint8)
        clips[f"test/{number}-0"] = Clip(
            f"test/{number}-0",
            rng.integers(0, 256, (length, size, size, 3), dtype=np.uint8),
            str(number),
            masks,
            rng.uniform(0, size, (length, 68, 2)).astype(np.float32),
            rng.uniform(-0.5, 0.5, (length, 3)).astype(np.float32),
            rng.uniform(0, 1, (length, 4)).astype(np.float32),
            rng.normal(size=(length, 15)).astype(np.float32),
        )
    return clips


@functools.cache
def toy_probe() -> Probe:
    """A probe that has learnt nothing: expressions of 4 coefficients and 3 joints."""
    images = jnp.zeros((1, PROBE_SIDE, PROBE_SIDE, 3))
    params = jax.jit(ProbeNetwork(13).init)(jax.random.key(0), images)["params"]
    rng = np.random.default_rng(0)
    shapes = {"landmarks": (68, 2), "angles": (3,), "expression": (13,)}
    statistics = {f"{name}_mean": rng.uniform(size=shape) for name, shape in shapes.items()}
    statistics |= {f"{name}_deviation": np.full(shape, 0.1) for name, shape in shapes.items()}
    statistics["landmarks_deviation"] = np.array(0.05)
    statistics = {name: np.float32(value) for name, value in statistics.items()}
    info = {
        "people": {"train": 5, "unseen": 3},
        "command": "none",
        "own_errors": {"probe_landmarks_px": 1.5, "probe_angles_deg": 2.5, "other_person": 0.25},
    }
    return Probe(jax.device_get(params), statistics, info)


def protocol(name: str, **changes) -> Protocol:
    values = CONFIGS[name].get_config()["protocol"].to_dict()
    return Protocol.from_config(values | changes)


def evaluate(clips, name="reconstruction", *, model=None, batch_size=3, system=None, **options):
    """Scores a toy model, by default `Halfway`."""
    model = model or Halfway(len(next(iter(clips.values())).frames[0]))
    chosen = protocol(name)
    answer = CheckpointAnswer(model, {}, batch_size=batch_size, relative=chosen.relative)
    pair_list = options.pop("pair_list", None) or build_pairs(chosen, clips.values())
    return evaluate_pairs(
        {MODEL_ROW: answer, **(system or {})}, pair_list, clips, batch_size=batch_size, **options
    )
