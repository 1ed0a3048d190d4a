"""The decision against brute force: every set of views at every threshold, counted pixel by pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from competition.oof import OutOfFold
from competition.tuning import choose, decide, decision_path, read_decision
from marsls_keras.config import Config
from marsls_keras.data.dataset import TileRef
from marsls_keras.data.folds import Splits
from marsls_keras.data.integrity import Tiles
from marsls_keras.errors import InputError
from marsls_keras.inference.views import VIEW_SETS, VIEWS
from marsls_keras.training.run_dir import Run

SETS = tuple(VIEW_SETS)
CASES = [(0, 2), (5, 2), (3, 3), (7, 3)]  # seed and folds; tuning helps in half of them
THRESHOLDS = np.array([k / 1000 for k in range(1, 1000)], np.float32)


def out_of_fold(masks: np.ndarray, views: dict[str, np.ndarray], folds: list[int], blocks: list | None = None) -> OutOfFold:
    """Return out-of-fold predictions that were made up; the tiles have masks, but no pixels."""
    number = len(masks)
    refs = tuple(TileRef(f"train/{i}", Path(f"{i}.tif"), Path(f"{i}.tif"), "train", "base", (i, 0)) for i in range(number))
    tiles = Tiles(refs, np.zeros((number, 0, 0, 7), np.float32), masks, masks == masks, ("",) * number, ((),) * number, "mmls_v2")
    blocks = list(range(number)) if blocks is None else blocks
    views = {name: values.astype(np.float32) for name, values in views.items()}
    return OutOfFold(tiles, np.array(folds), np.array(blocks), views, {"run": {"0": "ab" * 32}})


def made_up(seed: int, folds: int = 3, tiles: int = 9, size: int = 6, contrast: float = 0.12, names: tuple[str, ...] = VIEWS) -> OutOfFold:
    """Return predictions whose best threshold is far from 0.5 and whose views differ in noise; some seeds gain by tuning, some do not."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((tiles, size, size)) < 0.4).astype(np.uint8)
    middle = rng.uniform(0.4, 0.5)
    shared = middle + contrast * (masks - 0.5) + rng.normal(0, 0.1, masks.shape)
    views = {name: np.clip(shared + rng.normal(0, rng.uniform(0, 0.1), masks.shape), 0, 1) for name in names}
    views = {name: values.astype(np.float16) for name, values in views.items()}  # as they are cached
    return out_of_fold(masks, views, [i % folds for i in range(tiles)])


def mean_views(oof: OutOfFold, name: str) -> np.ndarray:
    """Return the mean over a set of views, summed in its order in float32, as the rule is."""
    names = VIEW_SETS[name]
    total = oof.views[names[0]].copy()
    for view in names[1:]:
        total += oof.views[view]
    return total / np.float32(len(names))


def miou(truth: np.ndarray, predicted: np.ndarray) -> float:
    both, either = (truth & predicted).sum(), (truth | predicted).sum()
    neither, missing = (~truth & ~predicted).sum(), (~truth | ~predicted).sum()
    return ((both / either if either else 1.0) + (neither / missing if missing else 1.0)) / 2


def brute_force(oof: OutOfFold, sets: tuple[str, ...], chosen: np.ndarray) -> tuple[str, float, float]:
    """Return set, threshold and mIoU of the best of all on the chosen tiles; among equals the set named first, the lowest threshold."""
    truth, best = oof.tiles.masks[chosen] == 1, ("", 0.0, -1.0)
    for name in sets:
        probability = mean_views(oof, name)[chosen]
        for k, threshold in enumerate(THRESHOLDS):
            score = miou(truth, probability >= threshold)
            if score > best[2]:
                best = (name, (k + 1) / 1000, score)
    return best


def predict(oof: OutOfFold, views: str, threshold: float, chosen) -> np.ndarray:
    return mean_views(oof, views)[chosen] >= np.float32(threshold)


def scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    y, p = truth.ravel(), predicted.ravel().astype(int)
    fg, bg = jaccard_score(y, p, zero_division=1), jaccard_score(y, p, pos_label=0, zero_division=1)
    return {"miou": (fg + bg) / 2, "iou_fg": fg, "iou_bg": bg, "f1": f1_score(y, p, zero_division=1)}


@pytest.mark.parametrize("seed,folds", CASES)
def test_the_decision_is_that_of_brute_force(seed, folds):
    oof = made_up(seed, folds)
    sets = ("identity", "paper", "d4")
    decision = decide(oof, sets)
    everything = np.arange(9)

    # Nested: each fold is segmented with what is best on the others.
    nested, per_fold = np.zeros(oof.tiles.masks.shape, bool), []
    for fold in range(folds):
        views, threshold, _ = brute_force(oof, sets, np.flatnonzero(oof.folds != fold))
        held_out = np.flatnonzero(oof.folds == fold)
        nested[held_out] = predict(oof, views, threshold, held_out)
        score = miou(oof.tiles.masks[held_out] == 1, nested[held_out])
        per_fold.append({"fold": fold, "views": views, "threshold": threshold, "miou": pytest.approx(score, abs=1e-12)})
    assert decision["nested"]["per_fold"] == per_fold
    honest, plain = scores(oof.tiles.masks, nested), scores(oof.tiles.masks, oof.views["identity"] >= 0.5)
    assert {name: decision["nested"]["scores"][name] for name in honest} == pytest.approx(honest, abs=1e-12)
    assert {name: decision["baseline"]["scores"][name] for name in plain} == pytest.approx(plain, abs=1e-12)
    assert decision["gain"]["miou"] == pytest.approx(honest["miou"] - plain["miou"], abs=1e-12)

    # Final: what is best on all, where the nested figure says that tuning helps.
    best = brute_force(oof, sets, everything)
    helps = honest["miou"] > plain["miou"]
    views, threshold = best[:2] if helps else ("identity", 0.5)
    assert (decision["views"], decision["threshold"]) == (views, threshold)
    tuned = scores(oof.tiles.masks, predict(oof, views, threshold, everything))
    assert {name: decision["tuned"]["scores"][name] for name in tuned} == pytest.approx(tuned, abs=1e-12)
    assert decision["expected"]["scores"] == decision["nested" if helps else "baseline"]["scores"]
    for name in sets:
        _, threshold, score = brute_force(oof, (name,), everything)
        assert decision["view_sets"][name] == {"threshold": threshold, "miou": pytest.approx(score, abs=1e-12)}
    assert max(decision["view_sets"].values(), key=lambda best: best["miou"])["miou"] == pytest.approx(best[2], abs=1e-12)


def test_the_seeds_above_hold_both_cases():
    gains = [decide(made_up(seed, folds), ("identity", "paper", "d4"))["gain"]["miou"] for seed, folds in CASES]
    assert min(gains) < 0 < max(gains)


def test_what_the_decision_holds():
    oof = made_up(0)
    decision = decide(oof, SETS)
    assert json.loads(json.dumps(decision)) == decision | {
        "expected": {**decision["expected"], "interval": list(decision["expected"]["interval"])},
        "baseline": {**decision["baseline"], "interval": list(decision["baseline"]["interval"])},
        "nested": {**decision["nested"], "interval": list(decision["nested"]["interval"])},
        "tuned": {**decision["tuned"], "interval": list(decision["tuned"]["interval"])},
        "gain": {**decision["gain"], "interval": list(decision["gain"]["interval"])},
    }
    assert decision["runs"] == ["run"] and decision["members"] == {"run": {"0": "ab" * 32}} and decision["folds"] == [0, 1, 2]
    assert list(decision["view_sets"]) == list(SETS)
    assert (decision["baseline"]["views"], decision["baseline"]["threshold"]) == ("identity", 0.5)
    for part in ("baseline", "nested", "tuned"):
        low, high = decision[part]["interval"]
        assert low < decision[part]["scores"]["miou"] < high
    low, high = decision["gain"]["interval"]
    assert low < decision["gain"]["miou"] < high


def test_intervals_are_those_of_resampled_blocks():
    """Pooled mIoU on blocks drawn with replacement; a gain is the difference on the same draws."""
    oof = made_up(1, folds=3, tiles=12)
    oof = out_of_fold(oof.tiles.masks, oof.views, oof.folds.tolist(), [f"b{i // 2}" for i in range(12)])
    decision = decide(oof, ("identity", "d4"))
    truth = oof.tiles.masks == 1
    plain, nested = oof.views["identity"] >= 0.5, np.zeros(truth.shape, bool)
    for row in decision["nested"]["per_fold"]:
        index = oof.folds == row["fold"]
        nested[index] = predict(oof, row["views"], row["threshold"], index)
    rng, draws = np.random.default_rng(7), []
    for _ in range(4000):
        tiles = np.concatenate([[2 * b, 2 * b + 1] for b in rng.integers(0, 6, 6)])
        draws.append((miou(truth[tiles], plain[tiles]), miou(truth[tiles], nested[tiles])))
    plain_draws, nested_draws = np.array(draws).T
    for part, values in (("baseline", plain_draws), ("nested", nested_draws), ("gain", nested_draws - plain_draws)):
        # The end of an interval from 1000 draws has an error of about 0.09 deviations.
        assert np.abs(np.array(decision[part]["interval"]) - np.quantile(values, [0.025, 0.975])).max() < 0.35 * values.std(), part
    # One block alone tells nothing about others.
    alone = decide(out_of_fold(oof.tiles.masks, oof.views, oof.folds.tolist(), ["b"] * 12), ("identity",))
    assert alone["baseline"]["interval"] == pytest.approx([alone["baseline"]["scores"]["miou"]] * 2)


def test_on_noise_the_nested_figure_does_not_flatter():
    """Probabilities that know nothing of the masks: what is chosen is always better where it was chosen, and nowhere else."""
    gains, flattery = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        masks = (rng.random((6, 8, 8)) < 0.5).astype(np.uint8)
        views = {name: rng.random(masks.shape) for name in VIEW_SETS["flips"]}
        decision = decide(out_of_fold(masks, views, [0, 0, 1, 1, 2, 2]), ("identity", "flips"))
        gains.append(decision["gain"]["miou"])
        flattery.append(max(best["miou"] for best in decision["view_sets"].values()) - decision["baseline"]["scores"]["miou"])
    error = np.std(gains) / np.sqrt(len(gains))
    assert min(flattery) > 0 and np.mean(flattery) > 0.02
    assert np.mean(gains) < 2 * error and np.mean(gains) < np.mean(flattery) / 4


def test_the_plain_decision_is_kept_where_tuning_does_not_help():
    rng = np.random.default_rng(0)
    masks = (rng.random((4, 8, 8)) < 0.5).astype(np.uint8)
    # In fold 0 the truth begins at 0.35, in fold 1 at 0.65: what is best in one is wrong in the other, and 0.5 is right in neither.
    edges = np.array([0.35, 0.35, 0.65, 0.65])[:, None, None]
    view = np.where(masks == 1, edges + 0.05, edges - 0.05) + rng.uniform(-0.02, 0.02, masks.shape)
    decision = decide(out_of_fold(masks, {"identity": view}, [0, 0, 1, 1]), ("identity",))
    assert [row["miou"] < 0.4 for row in decision["nested"]["per_fold"]] == [True, True]
    assert decision["gain"]["miou"] <= 0 and (decision["views"], decision["threshold"]) == ("identity", 0.5)
    assert decision["expected"]["scores"] == decision["baseline"]["scores"] == decision["tuned"]["scores"]
    assert decision["expected"]["interval"] == decision["baseline"]["interval"]


def test_the_tuned_decision_is_taken_where_it_helps():
    rng = np.random.default_rng(0)
    masks = (rng.random((6, 8, 8)) < 0.5).astype(np.uint8)
    # One view alone is blurred by noise; all eight together tell the truth, at 0.3.
    noise = {name: rng.normal(0, 0.15, masks.shape) for name in VIEWS}
    mean = sum(noise.values()) / 8
    views = {name: np.clip(0.3 + 0.2 * (masks - 0.5) + values - mean, 0, 1) for name, values in noise.items()}
    decision = decide(out_of_fold(masks, views, [0, 1, 2, 0, 1, 2]), SETS)
    assert decision["views"] == "d4" and 0.2 < decision["threshold"] <= 0.4
    assert decision["gain"]["miou"] > 0.2 and decision["gain"]["interval"][0] > 0
    assert decision["expected"]["scores"] == decision["nested"]["scores"] and decision["expected"]["scores"]["miou"] > 0.95


def test_one_fold_cannot_be_nested():
    oof = made_up(0, folds=1)
    decision = decide(oof, ("identity", "d4"))
    views, threshold, score = brute_force(oof, ("identity", "d4"), np.arange(9))
    assert decision["nested"] is None and decision["gain"] is None and decision["folds"] == [0]
    assert (decision["views"], decision["threshold"]) == (views, threshold) != ("identity", 0.5)
    assert decision["tuned"]["scores"]["miou"] == pytest.approx(score, abs=1e-12)
    # The tuned figure is optimistic; what is expected is that of the plain decision.
    assert decision["expected"]["scores"] == decision["baseline"]["scores"] != decision["tuned"]["scores"]


def table(pixels: list[tuple[int, float]]) -> np.ndarray:
    """Return the histogram of (class, probability), counted one by one."""
    counts = np.zeros((2, 1000), np.int64)
    for label, probability in pixels:
        counts[label, int(probability * 1000 + 1e-9)] += 1
    return counts


def test_among_equals_the_first_set_and_the_lowest_threshold_win():
    separable, worse = table([(0, 0.2), (0, 0.3), (1, 0.6), (1, 0.9)]), table([(0, 0.2), (0, 0.7), (1, 0.6), (1, 0.9)])
    for order in (["rotations", "identity", "d4"], ["d4", "rotations", "identity"]):
        tables = {name: worse if name == "identity" else separable for name in order}
        assert choose(tables) == (order[0], 0.301)
    assert choose({"identity": worse, "d4": worse}) == choose({"identity": worse}) == ("identity", 0.201)  # as good as at 0.701


def test_a_threshold_near_one_is_found_where_the_probabilities_call_for_it():
    # The background lies below 0.95, the landslide at it or above: RMAU-Net's best threshold (Table IX).
    rng = np.random.default_rng(0)
    masks = (rng.random((9, 12, 12)) < 0.3).astype(np.uint8)
    low, high = np.float16(0.9497), np.nextafter(np.float16(0.95), np.float16(1))  # neighbours in what is cached
    probability = np.where(masks, rng.uniform(0.951, 1, masks.shape), rng.uniform(0.6, 0.949, masks.shape))
    probability[:, 0, 0], masks[:, 0, 0] = low, 0
    probability[:, 0, 1], masks[:, 0, 1] = high, 1
    decision = decide(out_of_fold(masks, {"identity": probability}, [i % 3 for i in range(9)]), ["identity"])
    assert decision["threshold"] == 0.95 and decision["nested"]["scores"]["miou"] == 1 > decision["baseline"]["scores"]["miou"]
    assert [fold["threshold"] for fold in decision["nested"]["per_fold"]] == [0.95] * 3


def test_a_threshold_is_never_zero():
    assert choose({"identity": table([(1, 0.0), (1, 0.5)])})[1] == 0.001  # at 0 all would be right
    assert choose({"identity": table([(1, 0.5)] * 3)})[1] == 0.001


def fake_run(folder: Path, name: str, digests: dict[int, str]) -> Run:
    run = Run.create(folder / name, Config(), Splits("blocks", 2, ()), {"data_root": "/", "sha256": ""})
    for fold, digest in digests.items():
        run.fold_path(fold).mkdir()
        (run.fold_path(fold) / "metrics.json").write_text(json.dumps({"weights_sha256": digest}))
    return run


def test_a_decision_about_other_weights_is_refused(tmp_path):
    a, b = fake_run(tmp_path, "a", {0: "aa", 1: "ab"}), fake_run(tmp_path, "b", {0: "ba", 1: "bb"})
    assert decision_path([a]) == tmp_path / "a" / "decision.json" and decision_path([a, b]) == tmp_path / "a+b" / "decision.json"
    assert read_decision([a], [0, 1]) is read_decision([a, b], [0]) is None

    def decided(runs, members):
        decision = {"members": members, "views": "d4", "threshold": 0.4}
        decision_path(runs).parent.mkdir(exist_ok=True)
        decision_path(runs).write_text(json.dumps(decision))
        return decision

    decision = decided([a], {"a": {"0": "aa", "1": "ab"}})
    assert read_decision([a], [0, 1]) == decision
    decision = decided([a], {"a": {"0": "aa"}})  # fold 1 came later, fold 0 is as it was
    assert read_decision([a], [0, 1]) == decision
    decided([a], {"a": {"0": "old", "1": "old"}})
    with pytest.raises(InputError, match=r"a/decision\.json was taken before fold 0, 1 of run a was trained anew\. Run marsls tune again"):
        read_decision([a], [0, 1])
    decision = decided([a], {"a": {"0": "aa", "1": "old"}})
    assert read_decision([a], [0]) == decision  # fold 1 is not used
    decided([a, b], {"a": {"0": "aa", "1": "ab"}, "b": {"0": "ba", "1": "old"}})
    with pytest.raises(InputError, match=r"a\+b/decision\.json was taken before fold 1 of run b"):
        read_decision([a, b], [0, 1])
    assert read_decision([b], [0, 1]) is None
