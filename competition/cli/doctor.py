"""The command `marsls doctor`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from competition.cli.options import AsJson, Runs, next_line


def doctor(
    data: Annotated[Path, Option(envvar="MARSLS_DATA", help="Data folder.")] = Path("data"),
    devices: Annotated[
        bool, Option("--devices", help="Also import the backend and ask which devices it uses; takes some seconds.")
    ] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show versions, processor, memory, GPUs, installed weights, data and runs; exit code 1 if something is missing.

    Example:
        ```sh
        marsls doctor --devices
        ```
    """
    from competition.commands.doctor import examine
    from competition.console import show, show_json

    found = examine(data, runs, devices)
    if as_json:
        show_json(found)
    else:
        show(*_lines(found), *(f"Problem: {problem}" for problem in found["problems"]))
        if not devices:
            show("The backend was not imported. marsls doctor --devices imports it and lists the devices it uses.")
        there = found["data"]["layout"] is not None
        show(next_line("check" if there else "synth", str(data)))
    if found["problems"]:
        raise typer.Exit(1)


def _lines(found: dict[str, Any]) -> list[str]:
    from competition.commands.doctor import OPTIONAL

    versions, packages, machine = found["versions"], found["packages"], found["machine"]
    lines = [f"marsls-keras {versions['marsls-keras']}, Python {versions['python']}, {versions['platform']}"]
    lines += ["Packages: " + ", ".join(f"{name} {version}" for name, version in packages.items() if version)]
    lines += [
        f'  not installed: {name} ({purpose}); pip install "marsls-keras[{extra}]"'
        for name, (extra, purpose) in OPTIONAL.items()
        if packages[name] is None
    ]
    memory = f", {machine['memory']} GiB of memory" if "memory" in machine else ""
    memory += f" ({machine['memory_free']} GiB free)" if "memory_free" in machine else ""
    lines += [f"Machine: {machine['cpu_cores']} CPU cores{memory}, {machine['disk_free']} GiB free on disk"]
    lines += [f"GPUs: {'; '.join(found['gpus']) or 'none found by nvidia-smi'}"]
    if backend := found.get("backend"):
        used = ", ".join(backend["devices"]) or "the CPU only"
        lines += [f"Backend: {backend['name']} uses {used}; training.precision auto is {backend['precision_auto']}"]
    lines += [f"Pretrained weights installed: {', '.join(found['weights']) or 'none'}"]
    data = found["data"]
    splits = [f"{name} {n['images']} images and {n['masks']} masks" for name, n in data["splits"].items()]
    lines += [
        f"Data in {data['folder']}: {', '.join(splits)}" if data["layout"] else f"Data in {data['folder']}: none found"
    ]
    runs = [f"{name} ({folds} fold{'s' * (folds != 1)} trained)" for name, folds in found["runs"].items()]
    return [*lines, f"Runs: {', '.join(runs) or 'none'}"]
