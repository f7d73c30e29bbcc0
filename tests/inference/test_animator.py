"""`FrameAnimator` on a head whose answers can be written down."""

import jax
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, Keypoints
from talking_heads_jax.errors import ArgumentError, CheckpointError
from talking_heads_jax.inference import animator as animator_module
from talking_heads_jax.inference.animator import FrameAnimator
from talking_heads_jax.inference.motion_transfer import movement_scale, transfer_keypoints

from .conftest import SIDE, BrightnessHead, TurnableHead, moving_frames

SOURCE = moving_frames(1, seed=5)[0]
DRIVING = moving_frames(7, seed=1)

# Sums of 256 float32 numbers of size 1e-2, in an order XLA chooses by shape.
TOLERANCE = 3e-6


def _ready(head, variables, *, adapt_scale=True, **options):
    animator = FrameAnimator(head, variables, SOURCE, **options)
    animator.set_initial(DRIVING[2], adapt_scale=adapt_scale)
    return animator


def _unit(images):
    return images.astype(np.float32) / 255


def test_frames_equal_the_three_calls_of_the_model(head, variables):
    animator = _ready(head, variables)
    source = FaceInputs(image=_unit(SOURCE[None]))
    keypoints = head.encode_driving(variables, source)
    initial = head.encode_driving(variables, FaceInputs(image=_unit(DRIVING[2:3])))
    scale = movement_scale(np.asarray(keypoints.value[0]), np.asarray(initial.value[0]))
    assert animator.scale == pytest.approx(scale, rel=1e-5)
    for frame in DRIVING:
        driving = head.encode_driving(variables, FaceInputs(image=_unit(frame[None])))
        motion = transfer_keypoints(keypoints, driving, initial, relative=True, scale=scale)
        expected = head.animate_frame(variables, head.encode_source(variables, source), motion)
        got = animator.frames(frame[None])
        np.testing.assert_allclose(got.prediction, expected.prediction, atol=1e-5)
        np.testing.assert_allclose(got.motion.value, motion.value, atol=1e-5)
        np.testing.assert_allclose(got.driving_motion.value, driving.value, atol=TOLERANCE)


def test_frames_at_the_initial_frame_move_nothing(head, variables):
    animator = _ready(head, variables)
    motion = animator.frames(DRIVING[2:3]).motion
    np.testing.assert_allclose(motion.value, animator.source_motion.value, atol=TOLERANCE)
    np.testing.assert_allclose(motion.jacobian, animator.source_motion.jacobian, atol=TOLERANCE)


def test_frames_absolute_move_to_the_driving_keypoints(head, variables):
    animator = FrameAnimator(head, variables, SOURCE, relative=False)
    result = animator.frames(DRIVING[:1])
    np.testing.assert_array_equal(result.motion.value, result.driving_motion.value)
    np.testing.assert_allclose(
        result.motion.value, animator.motion(DRIVING[:1]).value, atol=TOLERANCE
    )


def test_set_initial_without_adaptation_has_scale_one(head, variables):
    assert _ready(head, variables, adapt_scale=False).scale == 1.0
    assert _ready(head, variables).scale != 1.0


def test_stream_is_the_same_for_every_batch_size(head, variables):
    one = list(_ready(head, variables).stream(iter(DRIVING)))
    for batch_size in (3, 7, 16):  # 7 frames: padded, exact, padded
        many = list(_ready(head, variables, batch_size=batch_size).stream(iter(DRIVING)))
        assert len(many) == len(one) == 7
        for left, right in zip(one, many, strict=True):
            np.testing.assert_array_equal(left.driving, right.driving)
            np.testing.assert_allclose(left.motion.value, right.motion.value, atol=TOLERANCE)
            # One level of 255: a value next to a rounding boundary may fall on either side.
            difference = left.prediction.astype(int) - right.prediction.astype(int)
            assert np.abs(difference).max() <= 1


def test_stream_is_deterministic(head, variables):
    first = list(_ready(head, variables).stream(iter(DRIVING)))
    second = list(_ready(head, variables).stream(iter(DRIVING)))
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left.prediction, right.prediction)


def test_stream_rounds_to_the_nearest_level(head, variables):
    animator = _ready(head, variables)
    streamed = next(animator.stream(iter(DRIVING[:1]))).prediction
    exact = np.asarray(animator.frames(DRIVING[:1]).prediction[0])
    assert streamed.dtype == np.uint8
    # Half a level, and the float32 error of multiplying by 255.
    assert np.abs(streamed - 255 * exact).max() <= 0.5 + 1e-4


def test_stream_reads_at_most_two_batches_ahead(head, variables):
    read = []

    def frames():
        for index in range(40):
            read.append(index)
            yield DRIVING[index % 7]

    stream = _ready(head, variables, batch_size=4).stream(frames())
    for done in range(1, 41):
        next(stream)
        assert len(read) <= done + 2 * 4


def test_stream_with_a_source_per_frame_uses_each(head, variables):
    sources = moving_frames(7, seed=9)
    animator = _ready(head, variables, batch_size=3, adapt_scale=False)
    for index, frame in enumerate(animator.stream(iter(DRIVING), iter(sources))):
        np.testing.assert_array_equal(frame.source, sources[index])
        single = FrameAnimator(head, variables, sources[index])
        single.set_initial(DRIVING[2], adapt_scale=False)
        expected = single.frames(DRIVING[index : index + 1])
        np.testing.assert_allclose(frame.motion.value, expected.motion.value[0], atol=TOLERANCE)
        difference = frame.prediction - 255 * np.asarray(expected.prediction[0])
        assert np.abs(difference).max() <= 0.51


def test_source_is_encoded_once_per_clip(head, variables, monkeypatch):
    calls = []
    original = animator_module._encode_source
    monkeypatch.setattr(
        animator_module, "_encode_source", lambda *args: calls.append(1) or original(*args)
    )
    list(_ready(head, variables).stream(iter(DRIVING)))
    assert len(calls) == 1


def test_compiled_code_is_shared_by_frames_clips_sources_and_animators(variables):
    head = BrightnessHead()
    for source in moving_frames(3, seed=7):
        animator = FrameAnimator(head, variables, source, batch_size=2)
        animator.set_initial(DRIVING[0])
        list(animator.stream(iter(DRIVING)))
    assert head.traces["animate_frame"] == 1
    assert head.traces["encode_source"] == 1


def test_source_encoding_is_no_part_of_a_frame(variables):
    head = BrightnessHead()
    animator = _ready(head, variables)
    head.traces["encode_source"] = 0
    animator.frames(DRIVING[:1])
    assert head.traces["encode_source"] == 0


def test_set_source_changes_the_identity_and_keeps_the_initial_frame(head, variables):
    animator = _ready(head, variables)
    before = animator.frames(DRIVING[:1])
    animator.set_source(moving_frames(1, seed=11)[0])
    after = animator.frames(DRIVING[:1])
    assert np.abs(np.asarray(before.prediction - after.prediction)).max() > 0.05
    np.testing.assert_array_equal(before.driving_motion.value, after.driving_motion.value)


def test_float_and_uint8_frames_mean_the_same(head, variables):
    animator = _ready(head, variables)
    left = animator.frames(DRIVING[:1])
    right = animator.frames(_unit(DRIVING[:1]))
    np.testing.assert_allclose(left.prediction, right.prediction, atol=TOLERANCE)


def test_pose_turns_the_source_keypoints():
    head = TurnableHead()
    variables = head.init(None) | {"pose_editor": {"params": {"gain": np.float32(2.0)}}}
    animator = FrameAnimator(head, variables)
    animator.set_source(SOURCE)
    still = animator.source_motion
    animator.set_source(SOURCE, pose_deg=(18.0, -9.0, 0.0))
    moved = animator.source_motion
    shift = 2.0 * np.deg2rad([18.0, -9.0])
    np.testing.assert_allclose(moved.value - still.value, np.tile(shift, (1, 4, 1)), atol=TOLERANCE)
    animator.set_initial(DRIVING[0], adapt_scale=False)
    motion = animator.frames(DRIVING[:1]).motion
    np.testing.assert_allclose(motion.value, moved.value, atol=TOLERANCE)


def test_pose_without_editor_or_trained_weights_says_so(head, variables):
    with pytest.raises(ArgumentError, match="pose editor"):
        FrameAnimator(head, variables).set_source(SOURCE, pose_deg=(1.0, 0.0, 0.0))
    turnable = TurnableHead()
    with pytest.raises(CheckpointError, match="trained pose editor"):
        FrameAnimator(turnable, variables).set_source(SOURCE, pose_deg=(1.0, 0.0, 0.0))
    trained = variables | {"pose_editor": {"params": {"gain": np.float32(1.0)}}}
    with pytest.raises(ArgumentError, match="yaw, pitch, roll"):
        FrameAnimator(turnable, trained).set_source(SOURCE, pose_deg=(float("nan"), 0.0, 0.0))


def test_unknown_order_and_shapes_are_refused(head, variables):
    animator = FrameAnimator(head, variables, batch_size=2)
    with pytest.raises(ArgumentError, match="initial driving frame must be set"):
        animator.frames(DRIVING[:1])
    with pytest.raises(ArgumentError, match="source image must be set"):
        animator.set_initial(DRIVING[0])
    animator.set_source(SOURCE)
    animator.set_initial(DRIVING[0])
    with pytest.raises(ArgumentError, match="number of driving frames"):
        animator.frames(DRIVING[:3])
    with pytest.raises(ArgumentError, match=f"{SIDE} x {SIDE}"):
        animator.frames(np.zeros((1, SIDE, SIDE + 1, 3), np.uint8))
    with pytest.raises(ArgumentError, match="uint8, or float"):
        animator.frames(DRIVING[:1].astype(np.int32))
    with pytest.raises(ArgumentError, match="number of source frames"):
        animator.frames(DRIVING[:2], sources=SOURCE[None])


def test_constructor_refuses_what_cannot_work(head, variables):
    with pytest.raises(ArgumentError, match="batch size"):
        FrameAnimator(head, variables, batch_size=0)
    with pytest.raises(CheckpointError, match="generator"):
        FrameAnimator(head, {})

    class NeedsCamera(BrightnessHead):
        required_inputs = frozenset({"image", "camera"})

    with pytest.raises(ArgumentError, match="camera"):
        FrameAnimator(NeedsCamera(), variables)


def test_relative_motion_needs_keypoints(variables):
    class Codes(BrightnessHead):
        def encode_driving(self, variables, driving):
            return driving.image.mean(axis=(1, 2))

    with pytest.raises(ArgumentError, match="relative=False"):
        FrameAnimator(Codes(), variables, SOURCE)


def test_results_are_arrays_on_the_device(head, variables):
    result = _ready(head, variables).frames(DRIVING[:1])
    assert isinstance(result.prediction, jax.Array)
    assert isinstance(result.motion, Keypoints)
    assert result.prediction.dtype == np.float32
