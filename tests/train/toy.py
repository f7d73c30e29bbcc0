"""A tiny GAN with batch statistics and spectral vectors: what the training tests train."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.models.base import FrameOutput, ObjectiveResult, Phase, TalkingHead


class ToyGenerator(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, source, driving, *, train):
        x = jnp.concatenate([source, driving], axis=-1)
        x = nn.Conv(self.width, (3, 3), use_bias=False)(x)  # batch norm would cancel a bias
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x))
        return nn.sigmoid(nn.Conv(3, (3, 3), name="final")(x))


class ToyDiscriminator(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.leaky_relu(nn.Conv(self.width, (3, 3), strides=(2, 2), name="first")(image), 0.2)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.width, 1))
        u = self.variable("spectral", "u", lambda: jnp.ones((1,)))
        v = self.variable("spectral", "v", lambda: jnp.full((self.width,), self.width**-0.5))
        if train and not self.is_initializing():
            fixed = jax.lax.stop_gradient(kernel)
            v.value = fixed[:, 0] * u.value / jnp.linalg.norm(fixed * u.value)
            u.value = jnp.sign(v.value @ fixed)
        return x @ (kernel / (v.value @ kernel @ u.value))


@dataclasses.dataclass(frozen=True)
class ToyHead(TalkingHead):
    name: ClassVar[str] = "toy"
    inference_networks: ClassVar[tuple[str, ...]] = ("generator",)
    resolution: int = 8
    width: int = 4

    @property
    def networks(self):
        return {
            "generator": ToyGenerator(self.width),
            "discriminator": ToyDiscriminator(self.width),
        }

    def arguments(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def init(self, rng, names=None):
        image = jnp.zeros((1, self.resolution, self.resolution, 3))
        inputs = {"generator": (image, image), "discriminator": (image,)}
        return {
            name: self.networks[name].init(jax.random.fold_in(rng, i), *inputs[name], train=False)
            for i, name in enumerate(self.networks if names is None else names)
        }

    def encode_source(self, variables, source):
        return source.image

    def encode_driving(self, variables, driving):
        return driving.image

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        prediction = self.networks["generator"].apply(
            variables["generator"], source_encoding, motion, train=False
        )
        return FrameOutput(prediction, {})


def generator_objective(networks, batch, context):
    noise = 0.05 * jax.random.normal(context.rng, batch.source.image.shape)
    prediction = networks("generator", batch.source.image + noise, batch.driving.image, train=True)
    logits = networks("discriminator", prediction, train=True)
    error = jnp.mean(jnp.abs(prediction - batch.driving.image), axis=(1, 2, 3))
    losses = {"pixel": 10.0 * error, "gan": jnp.mean((1 - logits) ** 2, axis=(1, 2, 3))}
    if "features" in context.helpers:
        features = context.helpers["features"]
        distance = jnp.abs(features(prediction) - features(batch.driving.image))
        losses["features"] = jnp.mean(distance, axis=(1, 2, 3))
    return ObjectiveResult(losses, {"prediction": prediction})


def discriminator_objective(networks, batch, context):
    real = networks("discriminator", batch.driving.image, train=True)
    fake = networks("discriminator", context.carry["prediction"], train=True)
    loss = jnp.mean((1 - real) ** 2, axis=(1, 2, 3)) + jnp.mean(fake**2, axis=(1, 2, 3))
    return ObjectiveResult({"gan": loss}, {})


def toy_phases(helpers=()):
    return (
        Phase("generator", ("generator",), generator_objective, helpers=tuple(helpers)),
        Phase("discriminator", ("discriminator",), discriminator_objective),
    )


def toy_batch(batch_size=4, resolution=8, seed=0, weight=None):
    draw = np.random.default_rng(seed)
    shape = (batch_size, resolution, resolution, 3)
    images = [draw.random(shape, dtype=np.float32) for _ in range(2)]
    ids = draw.integers(0, 1000, (batch_size, 2))
    return FramePair(FaceInputs(image=images[0]), FaceInputs(image=images[1]), ids, weight)


class ToyLoader:
    """Batches that are a function of the step alone, as the real loader's."""

    num_samples = 40

    def __init__(self, batch_size=4, resolution=8, limit=None):
        self.batch_size, self.resolution, self.limit = batch_size, resolution, limit
        self.closed = False

    def iterate(self, start_step):
        step = start_step
        while self.limit is None or step < self.limit:
            yield toy_batch(self.batch_size, self.resolution, seed=1000 + step)
            step += 1

    def close(self):
        self.closed = True
