"""Charts of a hyperparameter search: history, importance of each key, and parallel coordinates of trials."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from marsls_keras.report.plots import BLUE, GREEN, GREY, VERMILION, WIDTH, plain, plain_text


def study_plots(study: dict[str, Any]) -> list[tuple[str, Figure, str]]:
    """Draw those charts of a study that have enough trials; return title, figure and alternative text of each.

    Args:
        study: Content of a study.json: "keys", each with "low", "high" and "log" or with "choices"; "importance" by
            key; and "trials", each with "number", "state", "miou" (of finished ones), "last_miou" and "parameters" by
            key.

    Example:
        >>> trials = [{"number": 0, "state": "complete", "miou": 0.7, "last_miou": 0.7, "parameters": {}}]
        >>> [title for title, figure, alt in study_plots({"keys": {}, "importance": {}, "trials": trials})]
        ['Trials in their order']
    """
    done = [trial for trial in study["trials"] if trial["miou"] is not None]
    plots = []
    if study["trials"]:
        best = f"; the best mIoU is {max(trial['miou'] for trial in done):.4f}" if done else ""
        plots.append(
            (
                "Trials in their order",
                history(study["trials"]),
                f"mIoU of {len(study['trials'])} trials in their order{best}",
            )
        )
    if study["importance"]:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in study["importance"].items())
        plots.append(
            (
                "How much each key matters",
                importance(study["importance"]),
                f"Share of the spread of mIoU by key: {shares}",
            )
        )
    if len(done) > 1:
        alt = f"Parallel coordinates of {len(done)} finished trials over {', '.join(study['keys'])}, coloured by mIoU"
        plots.append(("What finished trials have in common", parallel_coordinates(study["keys"], done), alt))
    return plots


def history(trials: list[dict[str, Any]]) -> Figure:
    """Plot the mIoU of each trial in order and the best so far; pruned trials at the mIoU of their last epoch.

    Example:
        >>> figure = history([{"number": 0, "state": "complete", "miou": 0.7, "last_miou": 0.7, "parameters": {}}])
        >>> figure.axes[0].get_xlabel()
        'trial'
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    done = [trial for trial in trials if trial["miou"] is not None]
    stopped = [trial for trial in trials if trial["state"] == "pruned" and trial["last_miou"] is not None]
    failed = [trial for trial in trials if trial["state"] == "fail"]
    axes.plot(
        [trial["number"] for trial in done],
        [trial["miou"] for trial in done],
        "o",
        color=BLUE,
        markersize=5,
        label="finished",
    )
    if stopped:
        numbers, values = [trial["number"] for trial in stopped], [trial["last_miou"] for trial in stopped]
        axes.plot(numbers, values, "o", color=GREY, fillstyle="none", markersize=5, label="stopped early")
    if done:
        best = np.maximum.accumulate([trial["miou"] for trial in done])
        axes.step(
            [trial["number"] for trial in done], best, where="post", color=GREEN, linewidth=1.2, label="best so far"
        )
    if failed:  # without an mIoU they are drawn at the lower edge
        edge = axes.get_xaxis_transform()
        axes.plot(
            [trial["number"] for trial in failed],
            [0.02] * len(failed),
            "x",
            color=VERMILION,
            transform=edge,
            label="failed",
        )
    axes.set(xlabel="trial", ylabel="mIoU")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    plain(axes)
    return figure


def importance(shares: dict[str, float]) -> Figure:
    """Plot the importance of each key as horizontal bars, the largest on top.

    Example:
        >>> figure = importance({"training.learning_rate": 0.8, "model.name": 0.2})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['training.learning_rate', 'model.name']
    """
    figure = Figure(figsize=(WIDTH, 0.9 + 0.32 * len(shares)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([plain_text(key) for key in shares], list(shares.values()), color=BLUE, height=0.6)
    axes.bar_label(bars, labels=[f"{share:.0%}" for share in shares.values()], fontsize=9, padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="share of the spread of mIoU", xlim=(0, 1.12 * max(*shares.values(), 1e-9)))
    plain(axes)
    axes.grid(False, axis="y")
    return figure


def parallel_coordinates(keys: dict[str, dict[str, Any]], trials: list[dict[str, Any]]) -> Figure:
    """Plot an axis for each key and a line for each trial, coloured by mIoU, the best drawn last.

    Example:
        >>> keys = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
        >>> trials = [{"miou": 0.7, "parameters": {"training.learning_rate": 1e-3}}]
        >>> len(parallel_coordinates(keys, trials).axes[0].lines)  # the axis of the key and the trial
        2
    """
    figure = Figure(figsize=(max(WIDTH, 1.35 * len(keys)), 4.6), layout="constrained")
    axes = figure.subplots()
    values = [trial["miou"] for trial in trials]
    colours = ScalarMappable(Normalize(min(values), max(values) + 1e-9), colormaps["viridis_r"])
    for trial in sorted(trials, key=lambda trial: trial["miou"]):
        heights = [
            height(keys[key], trial["parameters"][key]) if key in trial["parameters"] else np.nan for key in keys
        ]
        # With markers: a line through a single value, between keys that the trial lacks, is invisible.
        axes.plot(
            range(len(keys)),
            heights,
            "o-",
            markersize=3,
            color=colours.to_rgba(trial["miou"]),
            linewidth=1.3,
            alpha=0.8,
        )
    for position, described in enumerate(keys.values()):
        axes.axvline(position, color=GREY, linewidth=0.8, zorder=0)
        for place, text in _ticks(described):
            axes.text(position + 0.03, place, plain_text(text), fontsize=7, color="#444444", va="center", clip_on=False)
    axes.set_xticks(range(len(keys)), [plain_text(key.replace(".", ".\n")) for key in keys], fontsize=8)
    axes.set(yticks=[], ylim=(-0.05, 1.05), xlim=(-0.2, len(keys) - 0.4))
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, label="mIoU", aspect=30, pad=0.02)
    return figure


def height(described: dict[str, Any], value: Any) -> float:
    """Return the position of a value on the axis of its key: 0 at the bottom, 1 at the top.

    Example:
        >>> round(height({"low": 1e-4, "high": 1e-2, "log": True}, 1e-3), 6)
        0.5
        >>> height({"choices": ["adam", "adamw", "sgd"]}, "adamw")
        0.5
    """
    if "choices" in described:
        return described["choices"].index(value) / max(1, len(described["choices"]) - 1)
    ends_and_value = (described["low"], described["high"], value)
    low, high, value = (math.log(number) if described["log"] else number for number in ends_and_value)
    return (value - low) / (high - low)


def _ticks(described: dict[str, Any]) -> list[tuple[float, str]]:
    if "choices" in described:
        texts = {choice: str(choice) for choice in described["choices"]}
        return [
            (height(described, choice), text if len(text) <= 22 else text[:20] + "…") for choice, text in texts.items()
        ]
    return [(float(place), f"{described[end]:.3g}") for place, end in ((0, "low"), (1, "high"))]
