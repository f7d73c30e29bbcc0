"""The rules of the house, checked on the syntax trees: who imports whom, names, calls, docstrings.

Imports inside functions count like those at the top of a file. When a rule is in the way, move the
code; an exception in this file is a decision about the architecture.
"""

import ast
import configparser
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("talking_heads_jax", "data_pipeline", "configs")
SCRIPTS = ("run_train.py", "run_eval.py")

FREE = {"typing", "errors", "batch"}  # what every folder may import
FEEDING = {
    *("schema", "mesh", "records", "sources", "options", "pairs", "transforms", "loaders"),
}
PIPELINE_TOOLS = {
    "ops",
    "geometry",
    "morphable",
    "networks",
    "tracking",
    "media",
    "serialization",
    "assets",
}
LIBRARY = {
    "serialization",
    "media",
    "assets",
    "ops",
    "geometry",
    "morphable",
    "layers",
    "networks",
    "tracking",
    "losses",
    "metrics",
    "models/base",
    "models/registry",
    "models/*",
    "checkpoint_description",
    "checkpoint_items",
    "training_checkpoints",
    "checkpoints",
    "train",
    "inference",
    "evaluation",
    "conversion",
}
ASSEMBLY = LIBRARY | {"build", "data_pipeline/feeding", "data_pipeline/synthetic"}

# Folder -> the folders of ours it may import, besides itself and FREE. `models/*` is any slice.
MAY_IMPORT: dict[str, set[str]] = {
    "typing": set(),
    "errors": set(),
    "batch": set(),
    "serialization": set(),
    "media": set(),
    "assets": {"serialization"},
    "ops": set(),
    "geometry": {"ops"},
    "morphable": {"ops", "geometry", "serialization", "assets"},
    "layers": {"ops"},
    "networks": {"ops", "layers", "serialization", "assets"},
    "tracking": {"ops", "geometry", "morphable", "networks", "media", "serialization"},
    "losses": {"ops", "networks"},
    "metrics": {"ops", "networks", "geometry", "morphable"},
    "models/base": {"ops", "layers"},
    "models/registry": {"ops", "layers", "models/base"},
    "models/*": {"models/base", "ops", "geometry", "morphable", "layers"},
    "models/objectives": {"models/base", "ops", "geometry", "morphable", "layers", "losses"},
    "models/*/objectives": {
        "models/base",
        "models/objectives",
        "ops",
        "geometry",
        "morphable",
        "layers",
        "losses",
    },
    "checkpoint_items": {"serialization"},
    "checkpoint_description": {"models/base", "models/registry"},
    "training_checkpoints": {"checkpoint_description", "checkpoint_items", "models/base"},
    "checkpoints": {
        "checkpoint_description",
        "checkpoint_items",
        "training_checkpoints",
        "serialization",
        "models/base",
    },
    "train": {"models/base", "losses/combine", "ops", "checkpoints"},
    "inference": {
        "models/base",
        "models/registry",
        "ops",
        "geometry",
        "morphable",
        "tracking",
        "media",
        "serialization",
        "checkpoints",
    },
    "evaluation": {
        "metrics",
        "networks",
        "models/base",
        "inference",
        "tracking",
        "media",
        "serialization",
        "ops",
        "geometry",
        "morphable",
    },
    "conversion": {
        "layers",
        "networks",
        "models/base",
        "models/registry",
        "models/*",
        "serialization",
        "assets",
        "checkpoints",
    },
    "parity": LIBRARY,
    "build": ASSEMBLY,
    "workflows": ASSEMBLY | {"configs"},
    "scripts": ASSEMBLY | {"configs"},
    "cli": ASSEMBLY | {"configs", "parity", "data_pipeline/preprocess"},
    "data_pipeline/feeding": {"serialization"},
    "data_pipeline/builders": PIPELINE_TOOLS
    | {"data_pipeline/feeding", "data_pipeline/preprocess", "data_pipeline/synthetic"},
    "data_pipeline/preprocess": PIPELINE_TOOLS
    | {"data_pipeline/feeding", "data_pipeline/builders"},
    "data_pipeline/synthetic": PIPELINE_TOOLS
    | {"data_pipeline/feeding", "data_pipeline/builders", "data_pipeline/preprocess"},
    "configs": set(),
}
# (folder, target): narrower than the table's rows, decided one by one.
LAZY_ONLY = {("data_pipeline/feeding", "data_pipeline/synthetic")}

BANNED_EVERYWHERE = {"torch", "torchvision", "tensorflow", "keras"}
BANNED_THIRD_PARTY = {
    "serialization": {"flax", "jax"},
    "media": {"flax", "jax"},
    "ops": {"flax"},
    "data_pipeline/feeding": {"jax", "jaxlib", "flax", "optax"},
    "configs": {"jax", "jaxlib", "flax", "numpy"},
}
IMPORT_NAMES = {
    "absl-py": "absl",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "tensorflow-datasets": "tensorflow_datasets",
}
BANNED_CALLS = {
    "pickle.load",
    "pickle.loads",
    "os.system",
    "os.popen",
    "eval",
    "exec",
    "compile",
    "jax.pmap",
    "nn.BatchNorm",  # flax stores the biased variance: layers has the faithful one
}
BANNED_ATTRIBUTES = {"nan_to_num", "pmap"}
BANNED_KEYWORDS = {("allow_pickle", True), ("shell", True)}
SHAPELESS_FILES = {"util", "utils", "misc", "helper", "helpers", "common"}
FOREIGN_WORDS = {
    "img",
    "imgs",
    "img_s",
    "img_d",
    "ref",
    "lmk",
    "lmks",
    "kp",
    "kps",
    "tex",
    "betas",
    "z_vals",
    "sigma2",
    "feats",
    "ws",
    "latents",
    "xc",
    "xd",
    "bs",
    "dct",
    "lst",
}
LONGEST_FILE = 700
LONGEST_SCRIPT = 120


@functools.cache
def source_files() -> tuple[Path, ...]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    files += [ROOT / script for script in SCRIPTS if (ROOT / script).exists()]
    return tuple(files)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def module_names() -> frozenset[str]:
    return frozenset(module_name(path) for path in source_files())


def folder_of(module: str) -> str | None:
    """The row of the table a module belongs to; None for the empty package roots."""
    parts = module.split(".")
    if parts[0] == "configs":
        return "configs"
    if parts[0] == "data_pipeline":
        if len(parts) == 1:
            return None
        return "data_pipeline/feeding" if parts[1] in FEEDING else f"data_pipeline/{parts[1]}"
    if parts[0] != "talking_heads_jax":
        return "scripts"
    if len(parts) == 1 or parts[1:] == ["models"]:
        return None
    if parts[1] != "models":
        return "cli" if parts[1].startswith("cli_") else parts[1]
    if parts[2] == "registry":
        return "models/registry"
    if f"{module}.model" not in module_names() and len(parts) == 3:
        if parts[2].endswith("objectives"):
            return "models/objectives"
        return "models/base"  # files beside the slices: the protocol, and what families share
    return "models/*/objectives" if parts[3:4] == ["objectives"] else "models/*"


def imports_of(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, absolute module, inside a function) of every import of a file, lazy ones included."""
    tree = tree_of(path)
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, id(node) in lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if full in module_names() else node.module, id(node) in lazy
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func) in ("importlib.import_module", "__import__")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, node.args[0].value, True


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute, '' of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        prefix = dotted(node.value)
        return f"{prefix}.{node.attr}" if prefix else ""
    return ""


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def public_definitions(
    path: Path,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions, classes and methods of public classes; not those nested in functions."""

    def visit(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        for node in body:
            if isinstance(node, kinds) and not node.name.startswith("_"):
                yield node
                if isinstance(node, ast.ClassDef):
                    yield from visit(node.body)

    yield from visit(tree_of(path).body)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    arguments = node.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*listed, *filter(None, (arguments.vararg, arguments.kwarg))]


def import_allowed(importer: str, target: str) -> bool:
    mine, theirs = folder_of(importer), folder_of(target)
    if theirs is None or mine is None:
        # The package roots define names lazily; only the version may be read from there.
        return target != "talking_heads_jax.models"
    if theirs in FREE:
        if mine == "configs" or mine in FREE:
            return importer == target
        return not (mine == "data_pipeline/feeding" and theirs == "typing")  # typing needs jax
    if mine.startswith("models/*") and theirs.startswith("models/*"):
        return importer.split(".")[2] == target.split(".")[2]
    if mine == theirs:
        return True
    allowed = MAY_IMPORT[mine]
    if theirs == "models/*/objectives":
        theirs = "models/*"
    return (
        theirs in allowed or target.removeprefix("talking_heads_jax.").replace(".", "/") in allowed
    )


def test_every_folder_has_a_row():
    """A new folder must be placed in the table before it may exist."""
    unknown = {
        folder
        for module in module_names()
        if (folder := folder_of(module)) is not None and folder not in MAY_IMPORT
    } - {"cli"}
    assert not unknown, f"folders without an import rule: {sorted(unknown)}"


def test_table_has_no_cycle_between_folders():
    """Arrows only go down: the table itself, read as a graph, can be sorted."""
    # One row of the table.
    peers = {f"data_pipeline/{name}" for name in ("builders", "preprocess", "synthetic")}
    below = {
        folder: {
            target.split("/combine")[0]
            for target in targets
            if not {folder, target} <= peers and target != folder
        }
        for folder, targets in MAY_IMPORT.items()
    }
    below["models/*"] |= {"models/base"}
    done: set[str] = set()
    while remaining := set(below) - done:
        ready = {folder for folder in remaining if below[folder] <= done}
        assert ready, f"import rules form a cycle among {sorted(remaining)}"
        done |= ready


def test_imports_follow_the_table():
    violations = []
    for path in source_files():
        importer = module_name(path)
        for line, target, lazy in imports_of(path):
            if target.split(".")[0] not in PACKAGES:
                continue
            pair = (folder_of(importer), folder_of(target))
            if not import_allowed(importer, target) and not (pair in LAZY_ONLY and lazy):
                violations.append(f"{where(path, line)}: {pair[0]} must not import {target}")
    assert not violations, "\n".join(violations)


def test_import_rules_reject_what_they_should():
    """The checker itself: rules that must bite, and arrows that must stay open."""
    prefix = "talking_heads_jax."
    for importer, target in [
        ("ops.warping", "layers.norms"),
        ("layers.norms", "networks.vgg19"),
        ("models.fnevr.model", "models.fomm.model"),
        ("models.fnevr.model", "losses.perceptual"),
        ("train.step", "models.fnevr.model"),
        ("train.step", "losses.perceptual"),
        ("inference.animate", "train.step"),
        ("errors", "batch"),
        ("parity.runner", "build"),
        ("build", "cli"),
    ]:
        assert not import_allowed(prefix + importer, prefix + target), (importer, target)
    for importer, target in [
        ("models.fnevr.objectives", "losses.perceptual"),
        ("models.fnevr.model", "models.base"),
        ("train.step", "losses.combine"),
        ("layers.norms", "typing"),
        ("cli", "parity.report"),
    ]:
        assert import_allowed(prefix + importer, prefix + target), (importer, target)
    assert not import_allowed("data_pipeline.loaders", prefix + "typing")
    assert not import_allowed("configs.fnevr.vox_256", prefix + "errors")
    assert not import_allowed(prefix + "inference.animate", "data_pipeline.loaders")


def test_third_party_imports_are_allowed_here():
    violations = []
    for path in source_files():
        folder = folder_of(module_name(path))
        banned = BANNED_EVERYWHERE | BANNED_THIRD_PARTY.get(folder, set())
        for line, target, _ in imports_of(path):
            if target.split(".")[0] in banned:
                violations.append(f"{where(path, line)}: {folder} must not import {target}")
    assert not violations, "\n".join(violations)


def test_third_party_imports_are_declared():
    """Top-level imports are core requirements (media files: or the media extra)."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    def names(text: str) -> set[str]:
        rows = [row for row in text.splitlines() if row.strip() and not row.startswith("#")]
        projects = [re.split(r"[\[<>=!~ ]", row.strip())[0] for row in rows]
        return {IMPORT_NAMES.get(name, name) for name in projects}

    core = names(setup["options"]["install_requires"]) | {"jaxlib"}
    extras = {key: names(value) for key, value in setup["options.extras_require"].items()}
    lazily = core.union(*extras.values())
    violations = []
    for path in source_files():
        folder = folder_of(module_name(path))
        for line, target, lazy in imports_of(path):
            top = target.split(".")[0]
            if top in PACKAGES or top in sys.stdlib_module_names:
                continue
            legal = lazily if lazy else core | (extras["media"] if folder == "media" else set())
            if top not in legal:
                violations.append(f"{where(path, line)}: {top} is not declared for this place")
    assert not violations, "\n".join(violations)


def test_files_have_telling_names():
    files = [*source_files(), *sorted((ROOT / "tests").rglob("*.py"))]
    shapeless = [
        str(path.relative_to(ROOT))
        for path in files
        if path.stem in SHAPELESS_FILES and path != ROOT / "configs" / "common.py"
    ]
    assert not shapeless, f"name these files after what is in them: {shapeless}"


def test_every_package_folder_has_an_init():
    missing = {
        str(path.parent.relative_to(ROOT))
        for path in source_files()
        if path.parent != ROOT and not (path.parent / "__init__.py").exists()
    }
    assert not missing, f"folders without __init__.py are not installed: {sorted(missing)}"


def test_files_stay_short():
    long = []
    for path in source_files():
        limit = LONGEST_SCRIPT if path.name in SCRIPTS else LONGEST_FILE
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > limit:
            long.append(f"{path.relative_to(ROOT)}: {count} lines, at most {limit}")
    assert not long, "\n".join(long)


def test_no_unsafe_or_banned_calls():
    violations = []
    for path in source_files():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Attribute) and node.attr in BANNED_ATTRIBUTES:
                violations.append(f"{where(path, node.lineno)}: {node.attr}")
            if not isinstance(node, ast.Call):
                continue
            if dotted(node.func) in BANNED_CALLS:
                violations.append(f"{where(path, node.lineno)}: {dotted(node.func)}(...)")
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in BANNED_KEYWORDS:
                    violations.append(f"{where(path, node.lineno)}: {keyword.arg}={value}")
                if keyword.arg == "axis_name" and value is not None:
                    violations.append(f"{where(path, node.lineno)}: a named axis; use one mesh")
    assert not violations, "\n".join(violations)


def test_public_names_have_docstrings():
    violations = []
    for path in source_files():
        if not ast.get_docstring(tree_of(path)):
            violations.append(f"{where(path, 1)}: module")
        for node in public_definitions(path):
            if not ast.get_docstring(node) and node.name != "setup":  # linen's hook
                violations.append(f"{where(path, node.lineno)}: {node.name}")
    assert not violations, "without a docstring:\n" + "\n".join(violations)


def test_public_functions_are_annotated():
    violations = []
    for path in source_files():
        for node in public_definitions(path):
            if isinstance(node, ast.ClassDef):
                continue
            bare = [
                parameter.arg
                for parameter in parameters(node)
                if parameter.annotation is None and parameter.arg not in ("self", "cls")
            ]
            if node.returns is None:
                bare.append("the result")
            if bare:
                violations.append(f"{where(path, node.lineno)}: {node.name}: {', '.join(bare)}")
    assert not violations, "without an annotation:\n" + "\n".join(violations)


def test_corner_rule_is_always_stated():
    """`align_corners` has no default anywhere, and is keyword-only in public signatures."""
    violations = []
    for path in source_files():
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.FunctionDef):
                continue
            arguments = node.args
            positional = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
            keyword_only = [argument.arg for argument in arguments.kwonlyargs]
            with_default = positional[len(positional) - len(arguments.defaults) :] + [
                name
                for name, default in zip(keyword_only, arguments.kw_defaults, strict=True)
                if default is not None
            ]
            public = not node.name.startswith("_")
            if "align_corners" in with_default or (public and "align_corners" in positional):
                violations.append(f"{where(path, node.lineno)}: {node.name}")
    assert not violations, "\n".join(violations)


def test_public_signatures_use_the_vocabulary():
    violations = []
    for path in source_files():
        for node in public_definitions(path):
            if isinstance(node, ast.ClassDef):
                continue
            foreign = {parameter.arg for parameter in parameters(node)} & FOREIGN_WORDS
            if foreign:
                violations.append(f"{where(path, node.lineno)}: {node.name}: {sorted(foreign)}")
    assert not violations, "see the vocabulary in docs/architecture.md:\n" + "\n".join(violations)


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_light_modules_import_without_numpy_and_jax():
    """The command line answers `--help` at once, and a spawned data worker starts for free."""
    run_python(
        "import sys\n"
        "import talking_heads_jax, talking_heads_jax.errors, talking_heads_jax.batch\n"
        "import talking_heads_jax.cli\n"
        "heavy = {'jax', 'flax', 'numpy', 'av', 'grain'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )


def test_configs_import_only_ml_collections():
    allowed = set(sys.stdlib_module_names) | {"ml_collections", "configs"}
    violations = [
        f"{where(path, line)}: {target}"
        for path in source_files()
        if folder_of(module_name(path)) == "configs"
        for line, target, _ in imports_of(path)
        if target.split(".")[0] not in allowed
    ]
    assert not violations, "\n".join(violations)


def test_feeding_never_reaches_jax():
    """What a spawned data worker imports, followed through our own files, has no jax in it."""
    paths = {module_name(path): path for path in source_files()}
    waiting = [name for name in paths if folder_of(name) == "data_pipeline/feeding"]
    seen: set[str] = set()
    violations = []
    while waiting:
        name = waiting.pop()
        if name in seen or name not in paths:
            continue
        seen.add(name)
        for line, target, lazy in imports_of(paths[name]):
            if target.split(".")[0] in ("jax", "jaxlib", "flax"):
                violations.append(f"{where(paths[name], line)}: {target}")
            if not lazy:
                waiting.append(target)
    assert not violations, "\n".join(violations)


@pytest.mark.integration
def test_importing_everything_starts_no_backend():
    """No array is made, and no device touched, while modules load."""
    modules = sorted(name for name in module_names() if "." in name)
    run_python(
        "import importlib\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized(), 'a module made arrays at import'\n"
    )
