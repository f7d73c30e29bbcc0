"""Writes tests/testdata/golden: the golden cases with full networks and inputs, few output numbers.

    python tests/testdata/make_reduced.py ../shared/golden

Run it when a case is added or changed; the tests read only what it wrote. Rows and columns are
thinned by steps that are odd, so that every phase of an upsampling is hit, and where possible
divide the last index, so that the far border is. Images that cases share are stored once.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
IMAGES = "images"

# Output -> step per axis of the *stored* reference (which may itself hold every n-th row).
STEPS = {
    "generator": {
        "prediction": (1, 5, 17, 1),
        "deformed": (1, 5, 17, 1),
        "render": (1, 5, 17, 1),
        "mask": (1, 3, 7, 1),
        "deformation": (1, 3, 3, 1),
        "occlusion_map": (1, 3, 3, 1),
    },
    "fomm_discriminator": {
        "map": (1, 1, 1, 1),
        "feature_0": (1, 3, 3, 5),
        "feature_1": (1, 3, 3, 9),
        "feature_2": (1, 2, 2, 9),
        "feature_3": (1, 2, 2, 17),
    },
    "vgg19_features": {
        "relu1_1": (1, 3, 3, 5),
        "relu2_1": (1, 3, 3, 9),
        "relu3_1": (1, 3, 3, 9),
        "relu4_1": (1, 3, 3, 17),
        "relu5_1": (1, 3, 3, 17),
    },
    "fomm_equivariance": {
        "frame": (1, 5, 7, 1),
        "pyramid_0.5": (1, 3, 7, 1),
        "pyramid_0.25": (1, 3, 3, 1),
    },
    "fomm_training_step": {"prediction": (1, 5, 9, 1)},
    "gdpw_discriminator": {
        "feature_0": (1, 3, 3, 5),
        "feature_1": (1, 3, 3, 9),
        "feature_2": (1, 2, 2, 9),
        "feature_3": (1, 1, 1, 17),
    },
    "fan_2d": {
        "heatmaps_0": (1, 5, 5, 3),
        "heatmaps_1": (1, 5, 5, 3),
        "heatmaps_2": (1, 5, 5, 3),
        "heatmaps_3": (1, 3, 3, 3),
    },
    "bisenet_face_parsing": {"logits": (1, 7, 9, 1)},
}
# Output -> n where the full format already stores every n-th row and column.
STORED_STEPS = {
    "fomm_discriminator": {f"feature_{i}": 4 for i in range(4)},
    "gdpw_discriminator": {f"feature_{i}": 4 for i in range(4)},
    "vgg19_features": {"relu1_1": 8, "relu2_1": 8, "relu3_1": 4, "relu4_1": 2},
    "fomm_training_step": {"prediction": 2},
    "fan_2d": {"heatmaps_0": 4, "heatmaps_1": 4, "heatmaps_2": 4, "heatmaps_3": 2},
    "bisenet_face_parsing": {"logits": 4},
}
CASES = (
    "fomm_kp_detector",
    "fnevr_kp_detector",
    "fomm_generator",
    "fnevr_generator",
    "fomm_discriminator",
    "fomm_equivariance",
    "vgg19_features",
    "fomm_training_step",
    "gdpw_discriminator",
    "fan_2d",
    "bisenet_face_parsing",
    "deca_regressor",
    "deep3d_regressor",
)


def reduce_case(source: Path, target: Path, name: str, images: dict[str, np.ndarray]) -> int:
    """Writes one reduced case; returns its size in bytes.

    Args:
      source: folder of full cases.
      target: folder of reduced cases.
      name: of the case.
      images: shared images so far, extended in place.
    """
    document = json.loads((source / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(source / f"{name}.npz", allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    kind = "generator" if name.endswith("generator") else name
    kept, subsample, inputs_from = {}, {}, {}
    for key, value in arrays.items():
        part, _, short = key.partition("/")
        if part == "in" and value.ndim == 4:
            inputs_from[short] = [f"{IMAGES}/{add_image(images, image)}" for image in value]
        elif part == "out":
            steps = STEPS.get(kind, {}).get(short)
            if steps is not None:
                kept[key] = value[tuple(slice(None, None, step) for step in steps)]
                stored = STORED_STEPS.get(name, {}).get(short, 1)
                subsample[short] = [steps[0], steps[1] * stored, steps[2] * stored, *steps[3:]]
            else:
                kept[key] = value
            if value.ndim and value.dtype == np.float64:
                kept[key] = kept[key].astype(np.float32)
        else:
            kept[key] = value
    document |= {"subsample": subsample, "inputs_from": inputs_from}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    (target / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(target / f"{name}.npz", **kept)
    return sum((target / f"{name}.{ending}").stat().st_size for ending in ("json", "npz"))


def add_image(images: dict[str, np.ndarray], image: np.ndarray) -> str:
    """Stores a (h w c) image once, as bytes where that is exact; returns its name."""
    if image.dtype != np.uint8:
        rounded = np.rint(image * 255).astype(np.uint8)
        if np.array_equal(rounded.astype(np.float32) / np.float32(255), image):
            image = rounded
    for name, known in images.items():
        if known.dtype == image.dtype and np.array_equal(known[0], image):
            return name
    name = f"image_{len(images)}"
    images[name] = image[None]
    return name


def main(argv: list[str]) -> int:
    """Reduces the cases of the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of full golden cases")
    parser.add_argument("--output", type=Path, default=HERE / "golden")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    images: dict[str, np.ndarray] = {}
    total = 0
    for name in CASES:
        size = reduce_case(arguments.source, arguments.output, name, images)
        total += size
        print(f"{name:24} {size:8d} bytes")
    path = arguments.output / f"{IMAGES}.npz"
    np.savez_compressed(path, **images)
    total += path.stat().st_size
    print(f"{IMAGES + '.npz':24} {path.stat().st_size:8d} bytes\n{'all':24} {total:8d} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
