"""One small set for all tests of the renderer: its programs are compiled once."""

import numpy as np
import pytest

from data_pipeline.synthetic.channels import expression_coeffs, joint_pose
from data_pipeline.synthetic.motion import CHANNELS
from data_pipeline.synthetic.talking_heads import FrameState, SyntheticTalkingHeads

SIZE = 48


@pytest.fixture(scope="session")
def heads():
    return SyntheticTalkingHeads(size=SIZE, num_threads=2)


@pytest.fixture(scope="session")
def make_state(heads):
    """make_state((yaw, pitch, roll) in degrees, rigid_bust, channel=value, ...)."""

    def make(angles_deg=(0, 0, 0), *, rigid_bust=False, **values):
        curves = {name: np.array([values.get(name, 0.0)]) for name in CHANNELS}
        angles = np.deg2rad(np.array([angles_deg], np.float64))
        model = heads.model
        pose = joint_pose(angles, curves, model.joint_names, rigid_bust=rigid_bust)
        return FrameState(
            identity=0,
            take=0,
            frame_index=0,
            angles=angles[0].astype(np.float32),
            expression_coeffs=expression_coeffs(curves, model.expression_names)[0],
            pose=pose[0],
            rigid_bust=rigid_bust,
        )

    return make
