"""Fixtures of the media tests."""

from pathlib import Path

import pytest

from tests.media.video_files import moving_frames, write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames of 48 x 64 with sound, 25 a second."""
    return write_clip(tmp_path / "clip.mp4", moving_frames(10), audio="aac")
