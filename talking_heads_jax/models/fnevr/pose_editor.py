"""The lightweight pose editor (LPE): change the head's pose without a driving frame."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.geometry.rotations import matrix_from_angles
from talking_heads_jax.layers.convolution import Dense
from talking_heads_jax.typing import Array, Float

_VALUES_PER_KEYPOINT = 6  # x, y and the four numbers of the Jacobian
_ROTATION_VALUES = 9
_LEAK = 0.2


class LightweightPoseEditor(nn.Module):
    """Source keypoints and a change of pose → keypoints of the turned head.

    The angles become a rotation matrix; with the flattened source keypoints and Jacobians it passes
    through an MLP that predicts the change of every value. At the start nothing changes.

    Attributes:
      num_keypoints: k.
      hidden_features: widths of the hidden layers.
      residual: add the source's values to the prediction; False predicts them outright.
      dtype: compute dtype of the hidden layers; keypoints stay float32.

    Source: FNeVR (NeurIPS 2022) Eq. 11, supplement Fig. 5; nothing of it was released.
    Differs from source: layer sizes are in a figure only: ours are three layers of 256. The paper
    compares the output with the driving keypoints (absolute targets); predicting the difference is
    what the released logger's name `kp_delta_predictor` suggests, and starts at the identity.
    Hidden layers are leaky: with plain ReLU whole layers died in the first steps of short trainings
    (large rates, nearly constant keypoints), and the editor then ignored the angles for good.
    """

    num_keypoints: int = 10
    hidden_features: tuple[int, ...] = (256, 256, 256)
    residual: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `hidden_N` and `output`, which starts at zero."""
        flat = self.num_keypoints * _VALUES_PER_KEYPOINT
        widths = (_ROTATION_VALUES + flat, *self.hidden_features)
        self.hidden = [
            Dense(widths[i], widths[i + 1], dtype=self.dtype)
            for i in range(len(self.hidden_features))
        ]
        zeros = nn.initializers.zeros
        self.output = Dense(widths[-1], flat, kernel_init=zeros, bias_init=zeros)

    def __call__(
        self, angles: Float[Array, "b 3"], source_keypoints: Keypoints, *, train: bool = False
    ) -> Keypoints:
        """Predicts the keypoints after the head turned.

        Args:
          angles: yaw, pitch, roll in radians, the change from the source's pose (in training
            driving − source); signs as in `geometry.rotations`.
          source_keypoints: with Jacobians.
          train: has no effect; there are no statistics.
        """
        del train
        batch = angles.shape[0]
        rotation = matrix_from_angles(angles)
        x = jnp.concatenate(
            [
                rotation.reshape(batch, -1),
                source_keypoints.value.reshape(batch, -1),
                source_keypoints.jacobian.reshape(batch, -1),
            ],
            axis=-1,
        )
        for layer in self.hidden:
            x = nn.leaky_relu(layer(x), _LEAK)
        change = self.output(x.astype(jnp.float32))
        split = 2 * self.num_keypoints
        value = change[:, :split].reshape(batch, self.num_keypoints, 2)
        jacobian = change[:, split:].reshape(batch, self.num_keypoints, 2, 2)
        if self.residual:
            value = value + source_keypoints.value
            jacobian = jacobian + source_keypoints.jacobian
        return Keypoints(value, jacobian)
