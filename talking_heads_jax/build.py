"""Assembly: from a config to model, phases, helper networks, optimisers, mesh, loader and trainer.

`run_train.py`, the command line and the workflows call this file; it holds no mathematics.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from talking_heads_jax.assets import home_folder, locate_asset
from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.errors import AssetNotFoundError, ConfigError, requirement
from talking_heads_jax.models.base import Phase, TalkingHead
from talking_heads_jax.models.registry import build_model as build_registered
from talking_heads_jax.models.registry import build_phases as build_registered_phases
from talking_heads_jax.networks.vgg19 import Vgg19Features, random_parameters
from talking_heads_jax.serialization.tensors import flatten, read_tensors, unflatten
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import Optimizer, adam
from talking_heads_jax.train.phases import required_helpers, trained_networks
from talking_heads_jax.train.program import StepProgram, make_program
from talking_heads_jax.train.recipe import Stage
from talking_heads_jax.train.schedules import Clock, build_schedule
from talking_heads_jax.train.sharding import SpecRule, local_rows, make_mesh
from talking_heads_jax.train.step import HelperFn
from talking_heads_jax.typing import PyTree

if TYPE_CHECKING:
    from talking_heads_jax.evaluation.clips import Clip
    from talking_heads_jax.evaluation.pairs import Pair
    from talking_heads_jax.evaluation.truth import ExactTruth
    from talking_heads_jax.train.trainer import Loader, Trainer

Config = Mapping[str, Any]


def enable_compilation_cache() -> None:
    """Keeps compiled programs in `$TALKING_HEADS_HOME/xla`, unless a cache is already set."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(home_folder() / "xla"))


def config_values(config: Any) -> dict[str, Any]:
    """A config as nested dictionaries of JSON types.

    Args:
      config: a ConfigDict or a mapping.
    """
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.loads(json.dumps(values))


def build_model(config: Config) -> TalkingHead:
    """The system that the section `model` describes.

    Args:
      config: the whole config; `model.name` is the registry name, the rest constructor arguments.

    Raises:
      ArgumentError: for an unknown name.
      ConfigError: for an unknown argument.
    """
    arguments = config_values(config["model"])
    return build_registered(arguments.pop("name"), **arguments)


def build_phases(config: Config, model: TalkingHead) -> tuple[Phase, ...]:
    """The phases that the section `objectives` describes.

    Args:
      config: the whole config.
      model: the system.

    Raises:
      ConfigError: for an unknown key or an impossible combination.
    """
    return build_registered_phases(model, config_values(config["objectives"]))


def build_helpers(
    config: Config, phases: Sequence[Phase]
) -> tuple[dict[str, HelperFn], dict[str, PyTree]]:
    """The frozen networks the phases call, as functions and parameters.

    Args:
      config: the whole config.
      phases: of the recipe.

    Returns:
      Name -> function of (parameters, images), name -> parameters.

    Raises:
      AssetNotFoundError: if the weights are not registered; says how to get them.
      ConfigError: for a helper nobody builds, or a file that is not its weights.
    """
    builders: dict[str, Callable[[Config], tuple[HelperFn, PyTree]]] = {"vgg19": _vgg19}
    functions, params = {}, {}
    for name in required_helpers(phases):
        if name not in builders:
            raise ConfigError(
                requirement(
                    "helper network", "be known to build.py", name, f"Known: {', '.join(builders)}."
                )
            )
        functions[name], params[name] = builders[name](config)
    return functions, params


def _vgg19(config: Config) -> tuple[HelperFn, PyTree]:
    section = config["objectives"]["perceptual"]
    dtype = jax.numpy.dtype(config["model"].get("dtype", "float32"))
    module = Vgg19Features(dtype=dtype)

    def features(params: PyTree, images: jax.Array) -> list[jax.Array]:
        return module.apply({"params": params}, images)

    weights = section["weights"]
    random = functools.partial(random_parameters, int(section["seed"]))
    if weights == "random":
        return features, jax.jit(random)()
    path = locate_asset("vgg19") if weights == "vgg19" else Path(weights).expanduser()
    if not path.is_file():
        raise AssetNotFoundError(
            requirement(
                "objectives.perceptual.weights",
                "be 'vgg19', 'random' or a converted file",
                path,
                "Run: talking-heads convert --model vgg19 FILE, or use "
                "--config.objectives.perceptual.weights=random.",
            )
        )
    params = unflatten(flatten(read_tensors(path)))
    _require_shapes(path, params, jax.eval_shape(random))
    return features, params


def _require_shapes(path: Path, params: PyTree, expected: PyTree) -> None:
    found, wanted = (
        {name: tuple(leaf.shape) for name, leaf in flatten(tree).items()}
        for tree in (params, expected)
    )
    wrong = sorted(name for name, shape in wanted.items() if found.get(name) != shape)
    if wrong:
        raise ConfigError(
            requirement(
                f"the weights in {path}",
                "be a converted VGG19",
                f"{len(wrong)} tensors missing or of another shape, {', '.join(wrong[:3])}",
                "Run: talking-heads convert --model vgg19 FILE.",
            )
        )


def build_clock(config: Config, num_samples: int) -> Clock:
    """Converts the config's epochs and samples to steps.

    Args:
      config: the whole config.
      num_samples: examples in one pass over the data, without `data.repeats`.
    """
    data = config["data"]
    return Clock(batch_size=data["batch_size"], epoch_samples=max(1, num_samples) * data["repeats"])


def build_optimizers(config: Config, networks: Iterable[str], clock: Clock) -> dict[str, Optimizer]:
    """Adam for each trained network, from the sections `optim` and `schedule`.

    Args:
      config: the whole config.
      networks: which are trained.
      clock: converts the schedule's durations.

    Raises:
      ConfigError: if a trained network has no entry in `optim.networks`.
    """
    optim = config["optim"]
    optimizers = {}
    for name in networks:
        if name not in optim["networks"]:
            raise ConfigError(
                requirement(
                    "optim.networks",
                    "have an entry for every trained network",
                    f"none for {name}",
                    f"Entries: {', '.join(optim['networks'])}.",
                )
            )
        section = optim["networks"][name]
        rules = [
            (pattern, None if factor is None else _schedule(config, section, clock, factor))
            for pattern, factor in (*section["rules"], (".*", 1.0))
        ]
        optimizers[name] = adam(
            rules,
            b1=optim["b1"],
            b2=optim["b2"],
            eps=optim["eps"],
            clip_norm=optim["clip_norm"] or None,
        )
    return optimizers


def _schedule(
    config: Config, section: Mapping[str, Any], clock: Clock, factor: float
) -> optax.Schedule:
    schedule = config["schedule"]
    return build_schedule(
        section["learning_rate"] * factor,
        name=schedule["name"],
        clock=clock,
        unit=schedule["unit"],
        duration=schedule["duration"],
        milestones=tuple(schedule["milestones"]),
        factor=schedule["factor"],
        warmup=schedule["warmup"],
    )


def build_stage(config: Config, model: TalkingHead, *, num_samples: int) -> Stage:
    """What is trained, with what, for how long.

    Args:
      config: the whole config.
      model: the system.
      num_samples: examples in one pass over the data.

    Raises:
      ConfigError: for sections that do not fit the model or each other.
    """
    config = config_values(config)
    phases = build_phases(config, model)
    _check_inputs(config, phases)
    trained = trained_networks(phases)
    clock = build_clock(config, num_samples)
    ema, checkpoint = config["optim"]["ema"], config["checkpoint"]
    return Stage(
        name=config["name"],
        phases=phases,
        optimizers=build_optimizers(config, trained, clock),
        num_steps=max(1, clock.steps(config["schedule"]["duration"], config["schedule"]["unit"])),
        batch_size=config["data"]["batch_size"],
        accumulation=config["optim"]["accumulation"],
        ema=Ema(tuple(ema["networks"]), ema["decay"], ema["warmup"]) if ema["decay"] else None,
        resume_from=checkpoint["resume_from"] or None,
        init_from={name: path for name, path in checkpoint["init_from"].items() if path},
    )


def _check_inputs(config: Config, phases: Sequence[Phase]) -> None:
    """Raises where an objective reads what the loader is not asked to load."""
    from data_pipeline.options import FIELD_OF_OPTION

    options = {field: option for option, field in FIELD_OF_OPTION.items()}
    for phase in phases:
        for name in phase.inputs:
            if name not in options:
                raise ConfigError(
                    requirement(
                        f"inputs of phase '{phase.name}'",
                        f"be what the loader can load: {', '.join(options)}",
                        name,
                        "Set the weights of its objectives to 0.",
                    )
                )
            if not config["data"].get(options[name], False):
                raise ConfigError(
                    requirement(
                        f"data.{options[name]}",
                        f"be True for the objectives of phase '{phase.name}'",
                        False,
                        f"They read `{name}`: load it, or set their weights to 0.",
                    )
                )


def build_mesh(config: Config, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of the section `mesh`.

    Args:
      config: the whole config.
      devices: default: all.

    Raises:
      ConfigError: if it does not fit the devices.
    """
    return make_mesh(data=config["mesh"]["data"], model=config["mesh"]["model"], devices=devices)


def build_loader(config: Config, mesh: Mesh) -> Any:
    """The training data of this process, from the section `data`.

    Args:
      config: the whole config.
      mesh: says which rows of the batch lie on this process's devices.

    Raises:
      ConfigError: if the section names no data, or makes no sense.
      DataError: if the folder cannot be read.
    """
    from data_pipeline.loaders import make_train_loader

    return make_train_loader(
        config["data"],
        batch_size=config["data"]["batch_size"],
        seed=config["seed"],
        rows=local_rows(mesh, config["data"]["batch_size"]),
    )


def open_clips(
    folder: Path,
    *,
    split: str,
    resolution: int | None = None,
    max_clips: int | None = None,
    max_frames: int | None = None,
) -> "dict[str, Clip]":
    """The clips of a data set by name, with everything else that it knows of their frames.

    Args:
      folder: the data set.
      split: of it.
      resolution: height and width of the frames; None for the stored size.
      max_clips: at most so many, spread evenly over the table.
      max_frames: of each clip, from its start.

    Raises:
      DataError: the data set is missing, damaged, too small or of another version.
    """
    from data_pipeline.loaders import make_eval_pairs
    from talking_heads_jax.evaluation.clips import Clip

    known = ("angles", "expression_coeffs", "joint_pose", "vertices", "shape_coeffs", "morphable")
    clips = make_eval_pairs(
        {"folder": str(folder), "resolution": resolution},
        split=split,
        max_clips=max_clips,
        max_frames=max_frames,
        optional=("mask", "landmarks68_px", *known),
    )
    found = {}
    for clip_id, frames in clips:
        images, masks, landmarks = map(frames.column, ("image", "mask", "landmarks68_px"))
        others = {name: frames.column(name) for name in known}
        found[clip_id] = Clip(clip_id, images, frames.identity_id, masks, landmarks, **others)
    return found


def open_exact_truth(folder: Path, *, clips: "Mapping[str, Clip]", split: str) -> "ExactTruth":
    """What a perfect system would return across identities, rendered when it is asked for.

    Args:
      folder: what `talking-heads synthesize` wrote.
      clips: of it, as `open_clips` gave them.
      split: of the clips.

    Raises:
      DataError: the data set is another one, or of another version of the renderer.
    """
    from data_pipeline.synthetic.exact_frames import ExactFrames
    from talking_heads_jax.evaluation.truth import ExactTruth

    clip = next(iter(clips.values()))
    first = np.asarray(clip.frames[0])
    frames = ExactFrames(folder, resolution=first.shape[0])
    frames.check(clip.clip_id, first)

    def draw(pair: "Pair", number: int) -> Any:
        return frames.render(pair.source_clip, pair.driving_clip, number)

    def draw_rival(pair: "Pair", number: int) -> Any:
        source, driving = pair.source_clip, pair.driving_clip
        return frames.render(source, driving, number, shape_of=driving).image

    return ExactTruth(
        lambda pair, number: draw(pair, number).image,
        lambda pair, number: draw(pair, number).mask,
        f"exact renders of the source's person as the driving person moves ({split})",
        lambda pair, number: draw(pair, number).landmarks,
        lambda pair, number: draw(pair, number).vertices,
        draw_rival,
    )


def build_program(
    config: Config, mesh: Mesh, *, batch_size: int | None = None, num_samples: int = 1000
) -> StepProgram:
    """The training step as `run_train.py` compiles it, with shapes in place of arrays.

    Args:
      config: the whole config.
      mesh: the devices, which need not exist here.
      batch_size: over all devices; default: the config's.
      num_samples: examples in one pass over the data; only moves the schedule.

    Raises:
      TalkingHeadsError: whatever is wrong with the config.
    """
    config = config_values(config)
    if batch_size is not None:
        config["data"]["batch_size"] = batch_size
    model = build_model(config)
    stage = build_stage(config, model, num_samples=num_samples)
    helpers, helper_params = build_helpers(config, stage.phases)
    return make_program(
        model,
        stage,
        batch_shapes(config),
        mesh=mesh,
        rules=_mesh_rules(config),
        helpers=helpers,
        helper_params=helper_params,
    )


def batch_shapes(config: Config) -> FramePair:
    """The global batch that a config trains on, as shapes.

    Args:
      config: the whole config; `data.masks`, `data.vertices` and `data.angles` add their fields.

    Raises:
      DataError: if the vertices of a data folder cannot be counted.
    """
    from data_pipeline.loaders import count_vertices

    data = config["data"]
    batch, side = data["batch_size"], config["model"]["resolution"]
    inputs = FaceInputs(image=jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32))
    if data["masks"]:
        inputs = inputs._replace(mask=jax.ShapeDtypeStruct((batch, side, side, 1), jnp.uint8))
    if data["vertices"]:
        shape = (batch, count_vertices(data), 3)
        inputs = inputs._replace(vertices=jax.ShapeDtypeStruct(shape, jnp.float32))
    if data["angles"]:
        inputs = inputs._replace(angles=jax.ShapeDtypeStruct((batch, 3), jnp.float32))
    return FramePair(inputs, inputs)


def _mesh_rules(config: Config) -> tuple[SpecRule, ...]:
    return tuple((pattern, tuple(spec)) for pattern, spec in config["mesh"]["rules"])


def _check_values(config: Config, model: TalkingHead) -> None:
    """Raises for values that a run would trip over only after it has made its folder."""
    data, checkpoint = config["data"], config["checkpoint"]
    if data["resolution"] not in (0, None, model.resolution):
        raise ConfigError(
            requirement(
                "data.resolution",
                "equal model.resolution",
                (data["resolution"], model.resolution),
                "Set both.",
            )
        )
    for name, value in (
        ("checkpoint.every", checkpoint["every"]),
        ("log.every", config["log"]["every"]),
    ):
        if value < 1:
            raise ConfigError(requirement(name, "be at least 1 step", value, "Correct it."))
    folders = {"checkpoint.resume_from": checkpoint["resume_from"]}
    folders |= {f"checkpoint.init_from.{k}": v for k, v in checkpoint["init_from"].items()}
    for name, folder in folders.items():
        if folder and not Path(folder).is_dir():
            raise ConfigError(
                requirement(name, "be a checkpoint folder", folder, "Check the path.")
            )


def build_trainer(
    config: Config,
    workdir: Path,
    *,
    loader: "Loader | None" = None,
    devices: Sequence[jax.Device] | None = None,
    progress: bool = True,
) -> "Trainer":
    """Everything a run needs, from its config.

    Args:
      config: the whole config.
      workdir: folder of checkpoints and logs.
      loader: batches, with `num_samples`; default: `build_loader`.
      devices: of the mesh; default: all.
      progress: show a progress bar.

    Raises:
      TalkingHeadsError: whatever is wrong with the config, the assets or the data.
    """
    from talking_heads_jax.train.trainer import Trainer

    enable_compilation_cache()
    config = config_values(config)
    model = build_model(config)
    _check_values(config, model)
    # What can be refused without reading data is refused before it is read.
    phases = build_phases(config, model)
    _check_inputs(config, phases)
    helpers, helper_params = build_helpers(config, phases)
    mesh = build_mesh(config, devices)
    loader = build_loader(config, mesh) if loader is None else loader
    stage = build_stage(config, model, num_samples=loader.num_samples)
    log, checkpoint = config["log"], config["checkpoint"]
    return Trainer(
        model=model,
        stage=stage,
        workdir=Path(workdir),
        config=config,
        mesh=mesh,
        loader=loader,
        seed=config["seed"],
        helpers=helpers,
        helper_params=helper_params,
        sharding_rules=_mesh_rules(config),
        log_every=log["every"],
        images_every=log["images_every"],
        num_images=log["num_images"],
        log_sample_ids=log["sample_ids"],
        save_every=checkpoint["every"],
        keep=checkpoint["keep"],
        keep_period=checkpoint["keep_period"] or None,
        progress=progress,
    )
