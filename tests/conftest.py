"""Environment of the tests: CPU, checked annotations, one compile cache, no access to user files.

Everything that a library reads once, at import, is set here at module level, before any test module
is collected; child processes inherit it.
"""

import os
import sys
from pathlib import Path

import pytest
from absl import flags

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("TALKING_HEADS_TYPECHECK", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tiny programs, compiled once and run once: optimising machine code costs five times what it saves.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Grain reads absl flags, which only `app.run` parses; pytest's own arguments are none of them.
if not flags.FLAGS.is_parsed():
    flags.FLAGS(sys.argv[:1])


@pytest.fixture(scope="session", autouse=True)
def talking_heads_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty `$TALKING_HEADS_HOME`, so that no test sees or changes what the user registered."""
    home = tmp_path_factory.mktemp("talking_heads_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKING_HEADS_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return ROOT


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The developers' folder of golden numbers and clips beside the repository, or a skip."""
    folder = Path(os.environ.get("TALKING_HEADS_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(
            f"no golden numbers at {folder}: set TALKING_HEADS_SHARED to a folder that has them"
        )
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs an accelerator when JAX runs without one."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import jax

    if jax.default_backend() == "cpu":
        reason = "no accelerator: run with JAX_PLATFORMS=cuda (or tpu) on a machine that has one"
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))
