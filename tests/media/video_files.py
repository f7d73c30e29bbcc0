"""Small videos, made with libav, that tests read."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TKHD_MATRIX = {  # 16.16 fixed point, the third column 2.30; what phones write
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def moving_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth pictures whose every frame differs: a gradient and a square that moves."""
    rows, columns = np.mgrid[0:height, 0:width]
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = (columns * 200 // width + 20).astype(np.uint8)
    frames[..., 1] = (rows * 200 // height + 20).astype(np.uint8)
    for index in range(count):
        left = 4 + 2 * index % (width - 20)
        frames[index, 8:24, left : left + 16] = (230, 40, 60)
        frames[index, -8:, :, 2] = 40 + 10 * (index % 20)
    return frames


def write_clip(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    fps: Fraction | int = 25,
    audio: str | None = None,
    rotation: int = 0,
) -> Path:
    """A video by plain libav, so that reader and writer are not tested against each other only."""
    pixels = {"gif": "rgb8", "libx264": "yuv420p"}.get(codec, "yuv420p")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        if codec == "libx264":
            stream.options = {"crf": "10"}
        sound = None
        if audio is not None:
            sound = container.add_stream(audio, rate=16000, layout="mono")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
        if sound is not None:
            samples = int(16000 * len(frames) / fps)
            tone = np.sin(np.arange(samples) * 0.17)[None] * 0.5
            resampler = av.AudioResampler(
                format=sound.codec_context.format.name, layout="mono", rate=16000, frame_size=1024
            )
            piece = av.AudioFrame.from_ndarray(tone.astype(np.float32), "fltp", "mono")
            piece.sample_rate, piece.pts = 16000, 0
            for part in [*resampler.resample(piece), *resampler.resample(None)]:
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    if rotation:
        data = bytearray(path.read_bytes())
        a, b, c, d = (value * 65536 for value in TKHD_MATRIX[rotation])
        matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        header = data.index(b"tkhd") + 4
        data[header + 40 : header + 76] = matrix
        path.write_bytes(data)
    return path
