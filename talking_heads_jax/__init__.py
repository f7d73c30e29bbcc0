"""One-shot talking heads in JAX: models, training, conversion and parity.

Importing the package does nothing but define names; submodules load when they are used.
"""

__version__ = "0.1.0"

_PUBLIC = {
    "Keypoints": "talking_heads_jax.batch",
    "FaceInputs": "talking_heads_jax.batch",
    "FramePair": "talking_heads_jax.batch",
    "build_model": "talking_heads_jax.models.registry",
    "list_models": "talking_heads_jax.models.registry",
    "load_model": "talking_heads_jax.checkpoints",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> object:
    """Imports a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'talking_heads_jax' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
