"""The sound of one video carried over into another while that is being written."""

import os
from collections.abc import Iterator
from pathlib import Path

import av

from talking_heads_jax.errors import MediaError, requirement
from talking_heads_jax.media.containers import sniff_container

# What an mp4 may hold and players know; anything else is encoded again as AAC.
_KEPT_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})


class AudioCopy:
    """The first audio stream of a file, copied into an open container piece by piece.

    Packets go over as they are where the container can hold their codec, otherwise they are decoded
    and encoded as AAC. Times are taken relative to the start of the file's video.
    """

    def __init__(
        self,
        path: Path,
        source: "av.container.InputContainer",
        file: object,
        output: "av.container.OutputContainer",
    ) -> None:
        """Adds the output stream; use `AudioCopy.open`.

        Args:
          path: the file, for messages.
          source: it, opened.
          file: the handle `source` reads from.
          output: the container to add a stream to, before its first packet.
        """
        self._path, self._source, self._file = path, source, file
        audio = source.streams.audio[0]
        video = source.streams.video[0] if source.streams.video else None
        self._origin = 0.0
        if video is not None and video.start_time is not None:
            self._origin = float(video.start_time * video.time_base)
        self.kept = audio.codec_context.name in _KEPT_CODECS
        if self.kept:
            self._stream = output.add_stream_from_template(audio)
            self._packets = self._copied(audio)
        else:
            rate = audio.codec_context.sample_rate
            layout = "mono" if audio.codec_context.channels == 1 else "stereo"
            self._stream = output.add_stream("aac", rate=rate, layout=layout)
            self._stream.codec_context.flags |= av.codec.context.Flags.bitexact.value
            self._packets = self._encoded(audio, rate, layout)
        self._pending = None
        self._done = False

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], output: "av.container.OutputContainer"
    ) -> "AudioCopy | None":
        """Returns a copy of the file's sound into `output`, or None when it has no sound.

        Args:
          path: a video file.
          output: the container to add a stream to, before its first packet.

        Raises:
          MediaError: the file cannot be read.
        """
        path = Path(path)
        container = sniff_container(path)
        file = path.open("rb")
        try:
            source = av.open(file, "r", format=container, options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError) as error:
            file.close()
            raise MediaError(
                requirement(f"{path}", "have readable sound", error, "Write without audio_from.")
            ) from error
        if not source.streams.audio or source.streams.audio[0].codec_context is None:
            source.close()
            file.close()
            return None
        return cls(path, source, file, output)

    def copy_until(self, output: "av.container.OutputContainer", seconds: float) -> None:
        """Writes the packets that start before `seconds`, counted from the start of the video.

        Args:
          output: the container given at construction.
          seconds: how far the video has been written.

        Raises:
          MediaError: the sound is damaged.
        """
        while not self._done:
            if self._pending is None:
                try:
                    self._pending = next(self._packets, None)
                except (av.FFmpegError, ValueError) as error:
                    raise MediaError(
                        requirement(
                            f"{self._path}",
                            "have readable sound",
                            error,
                            "Write without audio_from.",
                        )
                    ) from error
                if self._pending is None:
                    self._done = True
                    return
            start, packet = self._pending
            if start >= seconds:
                return
            output.mux(packet)
            self._pending = None

    def finish(self, output: "av.container.OutputContainer") -> None:
        """Stops at the end of the video; what comes later is dropped.

        Args:
          output: the container given at construction.
        """
        del output
        self._done = True

    def close(self) -> None:
        """Closes the source file."""
        self._packets.close()
        self._source.close()
        self._file.close()

    def _copied(self, audio: "av.AudioStream") -> Iterator[tuple[float, "av.Packet"]]:
        shift = round(self._origin / audio.time_base)
        for packet in self._source.demux(audio):
            if packet.dts is None or packet.pts is None:
                continue  # the end marker
            packet.pts -= shift
            packet.dts -= shift
            start = float(packet.pts * audio.time_base)
            if start < 0:
                continue
            packet.stream = self._stream
            yield start, packet

    def _encoded(
        self, audio: "av.AudioStream", rate: int, layout: str
    ) -> Iterator[tuple[float, "av.Packet"]]:
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=1024)
        samples, origin = 0, None
        for frame in self._frames_and_end(audio):
            if origin is None and frame is not None:
                begin = 0.0 if frame.time is None else frame.time
                origin = max(round((begin - self._origin) * rate), 0)
            for piece in resampler.resample(frame):
                piece.pts = (origin or 0) + samples
                samples += piece.samples
                for packet in self._stream.encode(piece):
                    yield float(packet.pts * packet.time_base), packet
        for packet in self._stream.encode(None):
            yield float(packet.pts * packet.time_base), packet

    def _frames_and_end(self, audio: "av.AudioStream") -> Iterator["av.AudioFrame | None"]:
        yield from self._source.decode(audio)
        yield None
