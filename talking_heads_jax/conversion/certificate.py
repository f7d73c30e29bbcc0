"""The certificate of a conversion: what was read, what became of it, how well it was checked."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from talking_heads_jax.serialization.tensors import array_bytes, flatten


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What a conversion did.

    Attributes:
      model: name of the model or fixed network.
      arguments: constructor arguments it was converted for.
      source: `file`, `bytes`, `sha256` of the file that was read.
      networks: network -> `source_tensors`, `tensors`, `parameters`, `sha256` of ours.
      ignored: what was dropped: top-level keys (optimiser states, epoch), tensors nothing reads.
      not_convertible: networks in the file whose architecture is not public.
      kept_for_reverse: tensors stored beside the output, for a bit-exact way back.
      revision: of the converter.
      errors: case -> output -> error, where a reference was given.
    """

    model: str
    arguments: dict[str, Any]
    source: dict[str, Any]
    networks: dict[str, dict[str, Any]]
    ignored: list[str]
    not_convertible: list[str]
    kept_for_reverse: int
    revision: str
    errors: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def describe_network(state: Mapping[str, Any], variables: Any) -> dict[str, Any]:
    """Counts and checksum of one converted network.

    Args:
      state: the official state dict.
      variables: our linen variables.

    Returns:
      `source_tensors`, `tensors`, `parameters`, and `sha256` over the paths, dtypes, shapes and
      bytes of our tensors, sorted by path.
    """
    flat = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    digest = hashlib.sha256()
    for path in sorted(flat):
        array = flat[path]
        digest.update(f"{path} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array_bytes(array))
    return {
        "source_tensors": len(state),
        "tensors": len(flat),
        "parameters": sum(a.size for path, a in flat.items() if path.startswith("params/")),
        "sha256": digest.hexdigest(),
    }
