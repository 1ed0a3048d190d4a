"""Weights of SwinV2 checkpoints of timm for the SwinV2 encoders of a network."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.errors import InputError, RunError, listing
from marsls_keras.files import sha256
from marsls_keras.lazy import keras

HUB = "hf:"
"""What the name of a repository of Hugging Face begins with, where a file could be given."""
_HUB_FILE = "model.safetensors"

_IGNORED = re.compile(r"^(head|norm)\.|\.(relative_coords_table|relative_position_index|attn_mask)$")
"""The classifier and the normalisation before it, which the encoders do not have, and tables that are computed here."""

_NAMES = (
    (r"embed(?:_(\w+))?_(proj|norm)/(\w+)", r"patch_embed.\2.\3"),
    (r"stage(\d)(?:_(\w+))?_merge/kernel", r"layers.\1.downsample.reduction.weight"),
    (r"stage(\d)(?:_(\w+))?_merge_norm/(\w+)", r"layers.\1.downsample.norm.\3"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/attention/(q_bias|v_bias|logit_scale)", r"layers.\1.blocks.\3.attn.\4"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/attention/cpb_mlp_(\d)/(\w+)", r"layers.\1.blocks.\3.attn.cpb_mlp.\4.\5"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/attention/(qkv|proj)/(\w+)", r"layers.\1.blocks.\3.attn.\4.\5"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/(fc[12])/(\w+)", r"layers.\1.blocks.\3.mlp.\4.\5"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/(norm[12])/(\w+)", r"layers.\1.blocks.\3.\4.\5"),
)
"""Path of a variable, and timm's name for it. The group is group 2 of the pattern, or group 1 for the patch embedding."""


def load_pretrained(model: keras.Model, source: str) -> dict[str, Any]:
    """Give all SwinV2 encoders of a network the weights of a checkpoint.

    Args:
        model: The network.
        source: Path of a safetensors file, or "hf:" and the name of a repository of Hugging Face that has a model.safetensors.

    Returns:
        For the record: "source", and "sha256" of the file.

    Raises:
        InputError: If the file cannot be read or is of another network, or the download lacks its package.
        RunError: If the download fails.
    """
    path = _download(source) if source.startswith(HUB) else Path(source)
    load_timm_swin_v2(model, path)
    return {"source": source, "sha256": sha256(path)}


def require_checkpoint(source: str) -> None:
    """Refuse a source of weights that is neither a file nor a repository of Hugging Face; the network need not be there for that.

    Raises:
        InputError: If so.
    """
    if not source.startswith(HUB) and not Path(source).is_file():
        what = f"{source} is a folder, no checkpoint." if Path(source).is_dir() else f"There is no checkpoint {source}."
        raise InputError(f"{what} Give a safetensors file, or {HUB} and the name of a repository of Hugging Face.")


def load_timm_swin_v2(model: keras.Model, path: str | Path) -> None:
    """Give all SwinV2 encoders of a network the weights of a checkpoint that timm wrote; each begins with the same.

    The classifier, the normalisation before it and stored tables are ignored; every other tensor of the file, and every variable of the
    encoders, must find its counterpart. Checkpoints of timm before 0.9, as the Hugging Face Hub still has them, count the downsampling to
    the stage before; they are recognised by their downsampling at the end of the first stage.

    A patch embedding of other than three bands is warmed up by the channels' mean (DualSwinFusionSeg, section 3.2): the first three bands
    get the kernels of red, green and blue, every further one their mean. Tiles of another size than the pretraining's need no change: the
    position bias is computed from offsets, scaled to the window (`encoders.swin_v2`).

    Args:
        model: A network or encoder that `build_model` or `build_encoder` made.
        path: A safetensors file in float32 or float16.

    Raises:
        InputError: If the network has no SwinV2 encoder, the file cannot be read, or tensors are missing, left over or of another shape;
            the first of them are named with their shapes. Nothing has been changed then.
    """
    variables: dict[str, list[tuple[str, keras.Variable]]] = {}
    for variable in model.weights:
        group, name = _timm_name(variable.path)
        if name:
            variables.setdefault(group, []).append((name, variable))
    if not variables:
        raise InputError(f"{path}: network {model.name} has no SwinV2 encoder that could take weights of timm.")
    tensors = _read(Path(path))
    values, troubles = [], []
    for pairs in variables.values():
        for name, variable in pairs:
            if name not in tensors:
                troubles.append(f"{name}: absent, expected for {variable.path} {variable.shape}")
                continue
            value = _LAYOUTS.get(name.rsplit(".", 2)[-2], _plain)(tensors[name])
            if name == "patch_embed.proj.weight" and value.ndim == 4 and value.shape[2] == 3:
                value = _warm(value, variable.shape[2])
            if value.shape != tuple(variable.shape):
                troubles.append(f"{name}: {tensors[name].shape} in the file does not fit {variable.path} {tuple(variable.shape)}")
            values.append((variable, value))
        wanted = {name for name, _ in pairs}
        troubles += [
            f"{name}: {tensor.shape} in the file, unknown to the network" for name, tensor in tensors.items() if name not in wanted
        ]
        if troubles:  # those of another group would be the same
            raise InputError(
                f"{path} is not a checkpoint of this network's SwinV2 (encoder and encoder_options say which it is):{listing(troubles, 8)}"
            )
    for variable, value in values:
        variable.assign(value)


def _timm_name(path: str) -> tuple[str, str]:
    """Return the group and timm's name of a variable of a SwinV2 encoder; empty texts for any other."""
    for pattern, replacement in _NAMES:
        if found := re.fullmatch(pattern, path):
            name = found.expand(replacement)
            name = re.sub(r"(kernel|gamma)$", "weight", re.sub(r"beta$", "bias", name))
            return found[1 if name.startswith("patch_embed") else 2] or "", name
    return "", ""


def _plain(tensor: np.ndarray) -> np.ndarray:
    """Return a weight of a linear layer as a kernel: (out, in) to (in, out); anything else as it is."""
    return tensor.T if tensor.ndim == 2 else tensor


def _convolution(tensor: np.ndarray) -> np.ndarray:
    """Return a weight of a convolution as a kernel: (out, in, h, w) to (h, w, in, out)."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else _plain(tensor)


def _merging(tensor: np.ndarray) -> np.ndarray:
    """Return a weight of a patch merging (2C, 4C), whose inputs are ordered by column, row, channel, as a kernel (2, 2, C, 2C)."""
    out, together = tensor.shape
    return tensor.reshape(out, 2, 2, together // 4).transpose(2, 1, 3, 0)


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"proj": _convolution, "reduction": _merging}


def _warm(kernel: np.ndarray, bands: int) -> np.ndarray:
    """Return a kernel (h, w, 3, out) for another number of bands."""
    mean = np.repeat(kernel.mean(axis=2, keepdims=True), max(bands - 3, 0), axis=2)
    return np.concatenate([kernel[:, :, :bands], mean], axis=2)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a checkpoint by timm's present names, in float32, without what is ignored.

    Raises:
        InputError: If the file is missing, damaged, or has tensors of another type.
    """
    from safetensors import SafetensorError, safe_open

    require_checkpoint(str(path))
    try:
        with safe_open(path, framework="np") as file:
            wanted = [name for name in file.keys() if not _IGNORED.search(name)]  # noqa: SIM118 - it is no dictionary
            kinds = {name: file.get_slice(name).get_dtype() for name in wanted}
            if other := [f"{name}: {kind}" for name, kind in kinds.items() if kind not in ("F32", "F16")]:
                raise InputError(f"{path}: expected tensors of F32 or F16, found:{listing(other, 8)}")
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in wanted}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is no safetensors file, or damaged: {error}") from None
    if any(name.startswith("layers.0.downsample.") for name in tensors):
        tensors = {re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", k): v for k, v in tensors.items()}
    return tensors


def _download(source: str) -> Path:
    """Return the path of a checkpoint of the Hugging Face Hub, from its cache or downloaded.

    Raises:
        InputError: If the package huggingface_hub is not installed.
        RunError: If the file cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise InputError(
            f'model.pretrained {source}: downloading needs the package huggingface_hub; pip install "marsls-keras[hub]" brings it. Or '
            f"download {_HUB_FILE} yourself and give its path."
        ) from None
    try:
        return Path(hf_hub_download(source.removeprefix(HUB), _HUB_FILE))
    except Exception as error:  # of the network, of the hub, of the name: dozens of kinds, and all mean that there is no file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(
            f"model.pretrained {source}: {_HUB_FILE} could not be downloaded from https://huggingface.co/{source.removeprefix(HUB)} "
            f"({reason}). Without a network, download it elsewhere and give the path of the file."
        ) from error
