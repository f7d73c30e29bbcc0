"""The folder of a data set while it is made: who may write, what is there, what comes last."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from data_pipeline.schema import (
    CLIP_TABLE,
    MANIFEST,
    RECORDS,
    SCHEMA_VERSION,
    ClipTable,
    check_version,
    read_clip_table,
    read_json,
    write_clip_table,
    write_json,
)
from talking_heads_jax.errors import DataError, requirement

_LOCK = ".lock"


class OutputFolder:
    """A data set's folder, locked against a second writer; context manager.

    Attributes:
      path: the folder.
      manifest: what `manifest.json` held when the folder was opened, or {}.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        """Names the folder.

        Args:
          path: new, empty, or begun with the same options.
          options: JSON values; the same for every run that continues the work.
        """
        self.path = path
        self.manifest: dict[str, Any] = {}
        self._new = self._discarded = False
        self._options = dict(options)

    @property
    def staging(self) -> Path:
        """Where finished clips wait."""
        return self.path / "staging"

    @property
    def records(self) -> Path:
        """Where TFDS writes."""
        return self.path / RECORDS

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.manifest.get("state") == "complete"

    def __enter__(self) -> "OutputFolder":
        """Checks what is there and locks the folder.

        Raises:
          DataError: it holds something else, or the same with other options, or is in use.
        """
        self._new = not self.path.exists()
        try:
            strangers = self.path.exists() and any(
                child.name not in (_LOCK, MANIFEST) for child in self.path.iterdir()
            )
            has_manifest = (self.path / MANIFEST).is_file()
            if strangers and not has_manifest:
                raise DataError(
                    requirement(
                        f"{self.path}",
                        "be new or empty",
                        "a folder with other files",
                        "Choose another --output; nothing was changed.",
                    )
                )
            if has_manifest:
                self.manifest = read_json(self.path / MANIFEST)
                self._check_options()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / _LOCK).open("w")
        except OSError as error:
            raise DataError(
                requirement(
                    f"{self.path}",
                    "be a folder that can be written to",
                    error.strerror or error,
                    "Choose another --output.",
                )
            ) from error
        self._lock_or_raise()
        if not self.complete:
            self.write_manifest("preparing")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()
        with contextlib.suppress(OSError):
            (self.path / _LOCK).unlink()
            if self._new and self._discarded:
                self.path.rmdir()

    def write_manifest(self, state: str, **content: Any) -> None:
        """Writes `manifest.json`.

        Args:
          state: 'preparing' or 'complete'.
          **content: further entries.
        """
        head = {"schema_version": SCHEMA_VERSION, "state": state, "options": self._options}
        write_json(self.path / MANIFEST, {**head, **content})

    def discard(self) -> None:
        """Removes what this run made of an unfinished data set; an earlier run's work stays."""
        if self.manifest:
            return
        shutil.rmtree(self.staging, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.path / MANIFEST).unlink()
        self._discarded = True

    def complete_with(self, table: ClipTable, **content: Any) -> None:
        """Writes the clip table and the final manifest, then removes the staged clips.

        Args:
          table: of the records that have been written.
          **content: further entries of the manifest.
        """
        write_clip_table(self.path, table)
        self.write_manifest("complete", **content)
        shutil.rmtree(self.staging, ignore_errors=True)

    def summary_of_complete(self, kind: type) -> Any:
        """Returns a summary of what an earlier run finished.

        Args:
          kind: the class to fill.
        """
        table = read_clip_table(self.path)
        rows = self.manifest["clips"]
        shutil.rmtree(self.staging, ignore_errors=True)
        return kind(
            output=self.path,
            clips=sum(row["status"] == "present" for row in rows),
            skipped={r["clip_id"]: r["reason"] for r in rows if r["status"] != "present"},
            records={split: table.num_records(split) for split in table.splits},
            reused=len(rows),
            split_note=self.manifest["split"]["note"],
            warnings=tuple(self.manifest["warnings"]),
            seconds=0.0,
        )

    def _check_options(self) -> None:
        check_version(f"{self.path / MANIFEST}", self.manifest.get("schema_version"))
        self._check_manifest()
        had = self.manifest["options"]
        if had == self._options and (not self.complete or (self.path / CLIP_TABLE).is_file()):
            return
        old, new = _flat(had), _flat(self._options)
        other = [
            f"{key}={old.get(key)!r} instead of {new.get(key)!r}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
        raise DataError(
            requirement(
                f"{self.path}",
                "hold a data set of the same options",
                "; ".join(other) or "a damaged one",
                "Choose another --output, or remove this one first; nothing was changed.",
            )
        )

    def _check_manifest(self) -> None:
        """Raises unless the manifest has the parts that are read from it."""
        rows = self.manifest.get("clips") if self.complete else []
        options, split = self.manifest.get("options"), self.manifest.get("split")
        fits = isinstance(options, dict) and isinstance(rows, list)
        fits = fits and all(
            isinstance(row, dict)
            and all(isinstance(row.get(key), str) for key in ("clip_id", "status"))
            and (row["status"] == "present" or isinstance(row.get("reason"), str))
            for row in rows
        )
        if self.complete:
            fits = fits and isinstance(split, dict) and isinstance(split.get("note"), str)
            fits = fits and isinstance(self.manifest.get("warnings"), list)
        if not fits:
            raise DataError(
                requirement(
                    f"{self.path / MANIFEST}",
                    "be a manifest of talking-heads prepare",
                    "other JSON",
                    "Choose another --output, or remove this one first; nothing was changed.",
                )
            )

    def _lock_or_raise(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: no lock, as before
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise DataError(
                requirement(
                    f"{self.path}",
                    "be free",
                    "a folder that another process is preparing",
                    "Wait for it, or choose another --output.",
                )
            ) from error


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by dotted names, so that a message about sections names what differs in them."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
