"""Nested search against brute force, counted pixel by pixel, and on synthetic predictions with known errors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.components import by_scikit_image, of_regions
from helpers.out_of_fold import made_up, out_of_fold
from helpers.records import FINGERPRINT, metrics
from scipy.ndimage import gaussian_filter
from scipy.special import expit, logit
from scipy.stats import t as student
from sklearn.metrics import f1_score, jaccard_score

from marsls_keras.config import Config
from marsls_keras.counts import Counts
from marsls_keras.data.splits import Splits
from marsls_keras.inference.decision import Decision, DecisionError
from marsls_keras.inference.decision_elements.max_hole import HOLES
from marsls_keras.inference.decision_elements.min_area import AREAS
from marsls_keras.inference.decision_elements.weights import in_tenths, simplex
from marsls_keras.inference.decision_files import decision_path, read_decision
from marsls_keras.runs.run import Run
from marsls_keras.tuning import nested_search
from marsls_keras.tuning.count_tables import CountTables
from marsls_keras.tuning.nested_search import NestedSearch
from marsls_keras.tuning.out_of_fold import OutOfFold
from marsls_keras.view_sets import VIEW_SETS, VIEWS

SETS = ("identity", "flips", "paper", "rotations", "d4")


CASES = [(1, 2), (36, 2), (3, 3), (7, 3)]  # seed and folds; tuning helps in half of them


THRESHOLDS = np.array([k / 1000 for k in range(1, 1000)], np.float32)


def mean_views(oof: OutOfFold, name: str) -> np.ndarray:
    """Return the mean over a set of views, summed in float32 in the order of the set."""
    names = VIEW_SETS[name]
    total = oof.probabilities["run"][names[0]].astype(np.float32)
    for view in names[1:]:
        total += oof.probabilities["run"][view].astype(np.float32)
    return total / np.float32(len(names))


def miou(truth: np.ndarray, predicted: np.ndarray) -> float:
    both, either = (truth & predicted).sum(), (truth | predicted).sum()
    neither, missing = (~truth & ~predicted).sum(), (~truth | ~predicted).sum()
    return ((both / either if either else 1.0) + (neither / missing if missing else 1.0)) / 2


def brute_force(oof: OutOfFold, sets: tuple[str, ...], chosen: np.ndarray) -> tuple[str, float, float]:
    """Return the best set, threshold and mIoU on the chosen tiles; the first set and the lowest threshold win ties."""
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


def by_hand(oof: OutOfFold, decision: dict) -> np.ndarray:
    """Return the masks of a decision, bool (N, H, W), computed without code of this project."""
    masks = np.zeros(oof.tiles.masks.shape, bool)
    views = VIEW_SETS[decision["views"]]
    total = np.zeros(masks.shape)
    for run, weight in decision["weights"].items():
        for view in views:
            values = oof.probabilities[run][view].astype(np.float64)
            total += (
                weight
                / len(views)
                * (logit(np.clip(values, 2**-11, 1 - 2**-11)) if decision["averaging"] == "logit" else values)
            )
    probability = expit(total) if decision["averaging"] == "logit" else total
    above = (
        probability >= decision["threshold"] - 1e-6
    )  # sums in single precision may lie below a threshold that they equal
    return np.stack([by_scikit_image(mask, decision["min_area"], decision["max_hole"]) for mask in above])


def jackknife(
    truth: np.ndarray, after: np.ndarray, before: np.ndarray | None, blocks: np.ndarray
) -> tuple[float, float]:
    """Return the 95 % interval of the mIoU of masks, or of its gain over others, by the delete-one-block jackknife."""
    names = np.unique(blocks)
    several = [after] if before is None else [after, before]

    def figure(tiles: np.ndarray) -> float:
        values = [miou(truth[tiles], masks[tiles]) for masks in several]
        return values[0] if before is None else values[0] - values[1]

    value, without = figure(blocks == blocks), np.array([figure(blocks != name) for name in names])
    content = np.array([sum((truth | masks)[blocks == name].sum() for masks in several) for name in names], float)
    degrees = max(content.sum() ** 2 / (content**2).sum() - 1, 1)
    error = student.ppf(0.975, degrees) * np.sqrt((len(names) - 1) / len(names) * ((without - value) ** 2).sum())
    if before is None:
        reach = error / (value * (1 - value))
        return expit(logit(value) - reach), expit(logit(value) + reach)
    return value - error, value + error


@pytest.mark.parametrize("seed,folds", CASES)
def test_threshold_and_views_are_those_of_brute_force(seed, folds):
    """Threshold and views are the best on some folds, and kept if their cross-validated gain is credible."""
    oof = made_up(seed, folds)
    sets, everything, truth = ("identity", "paper", "d4"), np.arange(9), oof.tiles.masks == 1
    search = NestedSearch(CountTables(oof), sets, 200)
    search.elements = ["threshold", "views"]

    def best(elements, chosen):
        if "threshold" in elements:
            return brute_force(oof, sets if "views" in elements else ("identity",), chosen)[:2]
        of = {
            name: miou(truth[chosen], predict(oof, name, 0.5, chosen))
            for name in (sets if "views" in elements else ("identity",))
        }
        return max(of, key=of.get), 0.5

    def nested(elements):
        masks = np.zeros(truth.shape, bool)
        for fold in range(folds):
            masks[oof.folds == fold] = predict(
                oof, *best(elements, np.flatnonzero(oof.folds != fold)), oof.folds == fold
            )
        return masks

    kept, halves = (), search.tables.all_halves
    for element in search.elements:
        if jackknife(truth, nested((*kept, element)), nested(kept), np.arange(9))[0] > 0:
            kept = (*kept, element)
    for elements in ((), ("threshold",), ("views",), ("threshold", "views")):
        chosen = search.choose(elements, halves)
        assert (chosen.view_set, chosen.threshold) == best(elements, everything)
        assert chosen == Decision(views=chosen.view_set, threshold=chosen.threshold, weights={"run": 1.0})
        found = search.nested(elements, halves).pooled().scores()
        expected = scores(oof.tiles.masks, nested(elements))
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert search.select(halves) == kept
    for name in sets:
        _, threshold, score = brute_force(oof, (name,), everything)
        found = search.best_of_views(name)
        assert (found.threshold, found.miou) == (threshold, pytest.approx(score, abs=1e-12))


def planted(seed: int = 0, tiles: int = 8, size: int = 48, folds: int = 4) -> OutOfFold:
    """Return predictions of smooth landslides with pinholes and specks of up to eight pixels, and of a run of noise."""
    rng = np.random.default_rng(seed)
    fields = np.stack([gaussian_filter(field, 6) for field in rng.normal(size=(tiles, size, size))])
    masks = np.stack([by_scikit_image(field > 0, 40, 40) for field in fields])
    wrong = np.zeros(masks.shape, bool)
    for tile in wrong:
        for row, column in rng.integers(1, size - 5, (12, 2)):
            tile[row : row + rng.integers(1, 3), column : column + rng.integers(1, 5)] = True
    sure = np.where(masks ^ wrong, 0.7, 0.3)
    noise = {"identity": rng.random(masks.shape)}
    views = {"identity": np.clip(sure + rng.normal(0, 0.02, sure.shape), 0, 1)}
    return out_of_fold(masks.astype(np.uint8), views, [i % folds for i in range(tiles)], noise=noise)


@pytest.fixture(scope="module")
def planted_decision():
    oof = planted()
    return oof, decide(oof, ("identity",))


def decide(*args, **kwargs) -> dict:
    """Return the content that `decide` would write to decision.json."""
    return nested_search.decide(*args, **kwargs).to_json()


def test_what_was_planted_is_found(planted_decision):
    """The noise run gets weight 0; specks are removed and pinholes filled, and landslides stay."""
    oof, decision = planted_decision
    assert decision["weights"]["run"] >= 0.8
    assert 8 < decision["min_area"] <= 48 and 8 <= decision["max_hole"] <= 48
    rows = {row["element"]: row for row in decision["elements"]}
    assert [rows[element]["kept"] for element in ("weights", "min_area", "max_hole")] == [True] * 3
    for element in ("min_area", "max_hole"):
        assert rows[element]["gain"]["interval"][0] > 0
        assert rows[element]["value"] == decision[element]
    assert (
        decision["gain"]["interval"][0] > 0
        and decision["nested"]["scores"]["miou"] > decision["baseline"]["scores"]["miou"] + 0.05
    )
    text = Decision.from_json(decision).describe()
    assert "components below" in text and "weights run" in text


def by_hand_apart(masks: np.ndarray, cells: list[tuple[int, int]], min_area: int) -> np.ndarray:
    """Return masks without small components, found in the raster of these tiles alone."""
    size = masks.shape[1]
    picture, known = np.zeros((2, 3 * size, 3 * size), bool)
    for mask, (row, column) in zip(masks, cells, strict=True):
        place = slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size)
        picture[place], known[place] = mask, True
    done = of_regions(picture, min_area, 0, known)
    return np.stack([done[r * size : (r + 1) * size, c * size : (c + 1) * size] for r, c in cells])


def test_sizes_are_those_of_the_picture_where_it_is_known():
    """Compare with brute force over sizes at threshold 0.5, on the assembled raster, counted on the other folds."""
    side, size, folds = 3, 24, 3
    rng = np.random.default_rng(4)
    truth = gaussian_filter(rng.normal(size=(side * size,) * 2), 9) > 0.02
    picture = truth ^ (gaussian_filter(rng.normal(size=truth.shape), 1.4) > 0.21)  # specks and holes of all sizes

    def cut(whole: np.ndarray) -> np.ndarray:
        return whole.reshape(side, size, side, size).swapaxes(1, 2).reshape(-1, size, size)

    held_by = [i % folds for i in range(side * side)]
    oof = out_of_fold(cut(truth).astype(np.uint8), {"identity": cut(picture) * 0.8}, held_by)
    refs = tuple(replace(ref, cell=divmod(i, side)) for i, ref in enumerate(oof.tiles.refs))
    oof = replace(oof, tiles=replace(oof.tiles, refs=refs))
    search = NestedSearch(CountTables(oof), ("identity",), 1)
    counts = search.nested(("max_hole", "min_area"), search.tables.all_halves)
    counts = Counts(counts.tp[search.tables.part], counts.fp[search.tables.part], 0, 0)  # each tile is a block here
    tried = {(hole, area): cut(by_scikit_image(picture, area, hole)) for hole in HOLES for area in AREAS}
    chosen = set()
    for fold in range(folds):
        own = np.array(held_by) == fold
        scores = {sizes: miou(cut(truth)[~own], masks[~own]) for sizes, masks in tried.items()}
        best = max(scores, key=lambda sizes: scores[sizes])
        chosen.add(best)
        masks = tried[best][own]
        assert np.array_equal(counts.tp[own], (masks & cut(truth)[own]).sum((1, 2)))
        assert np.array_equal(counts.fp[own], (masks & ~cut(truth)[own]).sum((1, 2)))
    assert all(min(sizes) > 0 for sizes in chosen)
    final = search.choose(("max_hole", "min_area"), search.tables.all_halves)
    assert final.across_borders and not search.choose(("threshold",), search.tables.all_halves).across_borders
    isolated = replace(oof, isolated=True)
    assert isolated.tiles.refs == refs and len({ref.raster for ref in isolated.places}) == folds
    masks = np.stack([predict(oof, "identity", 0.5, i) for i in range(side * side)])
    for fold in range(folds):  # one fold's tiles are alone, each at a distance from the next
        own = np.array(held_by) == fold
        index, found = CountTables(isolated).per_tile(
            Decision(min_area=9, across_borders=True), [2 * fold, 2 * fold + 1]
        )
        expected = by_hand_apart(masks[own], [refs[i].cell for i in np.flatnonzero(own)], 9)
        assert np.array_equal(index, np.flatnonzero(own)) and np.array_equal(
            found.tp, (expected & cut(truth)[own]).sum((1, 2))
        )
    alone = NestedSearch(
        CountTables(replace(oof, tiles=replace(oof.tiles, refs=tuple(replace(ref, cell=None) for ref in refs)))),
        ("identity",),
        1,
    )
    other = alone.nested(("max_hole", "min_area"), alone.tables.all_halves)
    assert not np.array_equal(other.tp[alone.tables.part], counts.tp)  # borders make a difference here


def test_the_figures_are_those_of_the_masks(planted_decision):
    """Compare all scores with those of masks made by hand: of the final decision, of each fold, and of the gain."""
    oof, decision = planted_decision
    truth = oof.tiles.masks
    nested = np.zeros(truth.shape, bool)
    for row in decision["nested"]["per_fold"]:
        index = oof.folds == row["fold"]
        nested[index] = by_hand(oof, row)[index]
        assert row["miou"] == pytest.approx(miou(truth[index] == 1, nested[index]), abs=1e-4)
    for part, masks in (
        ("nested", nested),
        ("tuned", by_hand(oof, decision)),
        ("baseline", by_hand(oof, decision["baseline"])),
    ):
        expected = scores(truth, masks)
        assert {name: decision[part]["scores"][name] for name in expected} == pytest.approx(expected, abs=1e-4), part
    gain = miou(truth == 1, nested) - miou(truth == 1, by_hand(oof, decision["baseline"]))
    assert decision["gain"]["miou"] == pytest.approx(gain, abs=2e-4)
    assert decision["expected"]["scores"] == decision["nested"]["scores"]


def test_counts_from_tables_are_those_of_masks():
    """Counts from tables are equal to those of masks from `Decision.segment`."""
    oof = planted(1, tiles=4, folds=2)
    tables = CountTables(oof)
    choices = [
        Decision(weights={"run": 0.5, "noise": 0.5}, threshold=0.5, min_area=16, max_hole=4),
        Decision(weights={"run": 0.7, "noise": 0.3}, threshold=0.62, min_area=48),
        Decision(weights={"run": 0.9, "noise": 0.1}, averaging="logit", threshold=0.405, max_hole=12),
        Decision(weights={"run": 0.0, "noise": 1.0}, threshold=0.5),
    ]
    for choice in choices:
        for halves in (tables.all_halves, tables.all_halves[1:3]):
            index, counts = tables.per_tile(choice, halves)
            assert index.tolist() == np.flatnonzero(np.isin(tables.half, halves)).tolist()
            parts, of_parts = tables.per_part(choice, halves)
            assert of_parts.pooled() == counts.pooled()
            for part, found in zip(parts, of_parts.tp, strict=True):
                assert found == counts.tp[tables.part[index] == part].sum()
            masks = by_hand(oof, choice.to_values())[index]
            assert counts.pooled().scores()["miou"] == pytest.approx(miou(oof.tiles.masks[index] == 1, masks), abs=2e-3)


def test_a_fold_has_no_say_in_how_it_is_segmented():
    """If the masks of a fold are inverted, the decision for this fold does not change, elements included."""
    for oof, sets in ((planted(2), ("identity",)), (made_up(5, 3), SETS)):
        decision = decide(oof, sets)
        for row in decision["nested"]["per_fold"][:2]:
            masks = oof.tiles.masks.copy()
            masks[oof.folds == row["fold"]] ^= 1
            other = decide(replace(oof, tiles=replace(oof.tiles, masks=masks)), sets)["nested"]["per_fold"]
            found = next(found for found in other if found["fold"] == row["fold"])
            assert {**found, "miou": None} == {**row, "miou": None}


def test_optuna_suggests_weights_where_there_are_too_many_to_try():
    oof = planted(3)
    rng = np.random.default_rng(0)
    more = {f"noise{i}": {"identity": rng.random(oof.tiles.masks.shape).astype(np.float16)} for i in range(2)}
    oof = replace(oof, probabilities={**oof.probabilities, **more})
    search = NestedSearch(CountTables(oof), ("identity",), trials=30)
    assert len(list(simplex(4))) == 286 > search.trials
    chosen = search.choose(("threshold", "weights"), search.tables.all_halves)
    assert chosen == NestedSearch(CountTables(oof), ("identity",), trials=30).choose(
        ("threshold", "weights"), search.tables.all_halves
    )  # seeded
    equal, best = (
        search.tables.per_part(choice, search.tables.all_halves)[1].pooled().scores()["miou"]
        for choice in (Decision(), chosen)
    )
    assert (
        chosen.run_weights["run"] >= 0.5 and sum(chosen.run_weights.values()) == pytest.approx(1) and best > equal + 0.1
    )


def test_weightsin_tenths():
    assert sorted(list(simplex(2))) == [(k / 10, (10 - k) / 10) for k in range(11)]
    assert len(set(list(simplex(3)))) == 66 and all(sum(weights) == pytest.approx(1) for weights in list(simplex(3)))
    assert (
        in_tenths([1, 1, 1]) == (0.4, 0.3, 0.3) and in_tenths([0, 7]) == (0.0, 1.0) and in_tenths([0, 0]) == (0.5, 0.5)
    )
    assert set(in_tenths([3, 9, 7]) for _ in range(3)) <= set(list(simplex(3)))


def test_elements_without_a_choice_are_not_offered():
    oof = made_up(0)
    assert [row["element"] for row in decide(oof, ("identity",))["elements"]] == ["threshold", "min_area", "max_hole"]
    assert [row["element"] for row in decide(oof, ("d4",))["elements"]] == [
        "threshold",
        "views",
        "averaging",
        "min_area",
        "max_hole",
    ]
    offered = [row["element"] for row in decide(planted(tiles=4), ("identity", "identity"))["elements"]]
    assert offered == ["threshold", "weights", "averaging", "min_area", "max_hole"]


def test_the_seeds_above_hold_both_cases():
    kept = []
    for seed, folds in CASES:
        search = NestedSearch(CountTables(made_up(seed, folds)), ("identity", "paper", "d4"), 200)
        search.elements = ["threshold", "views"]
        kept.append(search.select(search.tables.all_halves))
    assert len(set(kept)) > 1


def test_what_the_decision_holds():
    oof = made_up(0)
    decision = decide(oof, SETS)
    assert json.loads(json.dumps(decision)) == decision
    assert set(Decision().to_values()) < set(decision) and decision["weights"] == {"run": 1.0}
    assert (
        decision["runs"] == ["run"]
        and decision["members"] == {"run": dict.fromkeys("012", "ab" * 32)}
        and decision["folds"] == [0, 1, 2]
    )
    assert list(decision["view_sets"]) == list(SETS)
    assert (decision["baseline"]["views"], decision["baseline"]["threshold"]) == ("identity", 0.5)
    for part in ("baseline", "nested", "tuned"):
        low, high = decision[part]["interval"]
        assert low < decision[part]["scores"]["miou"] < high
    low, high = decision["gain"]["interval"]
    assert low < decision["gain"]["miou"] < high


def test_intervals_are_those_of_blocks_left_out():
    """Compare all intervals with a jackknife over blocks of the masks."""
    oof = made_up(1, folds=3, tiles=12)
    oof = out_of_fold(oof.tiles.masks, oof.probabilities["run"], oof.folds.tolist(), [f"b{i // 2}" for i in range(12)])
    decision = decide(oof, ("identity", "d4"))
    truth = oof.tiles.masks == 1
    plain, nested = oof.probabilities["run"]["identity"] >= 0.5, np.zeros(truth.shape, bool)
    for row in decision["nested"]["per_fold"]:
        index = oof.folds == row["fold"]
        nested[index] = by_hand(oof, row)[index]
    blocks = oof.blocks
    assert decision["baseline"]["interval"] == pytest.approx(jackknife(truth, plain, None, blocks), abs=1e-9)
    assert decision["nested"]["interval"] == pytest.approx(jackknife(truth, nested, None, blocks), abs=1e-9)
    assert decision["gain"]["interval"] == pytest.approx(jackknife(truth, nested, plain, blocks), abs=1e-9)
    # One block alone tells nothing about others: no interval, and nothing is kept.
    alone = decide(
        out_of_fold(oof.tiles.masks, oof.probabilities["run"], oof.folds.tolist(), ["b"] * 12), ("identity",)
    )
    assert [alone[part]["interval"] for part in ("baseline", "nested", "tuned", "gain", "expected")] == [None] * 5
    assert not any(row["kept"] for row in alone["elements"]) and all(
        row["gain"]["interval"] is None for row in alone["elements"]
    )
    assert (alone["threshold"], alone["gain"]["miou"]) == (0.5, 0)


def test_regions_are_the_folds_where_they_are_geographic():
    oof = made_up(1)
    assert "regions" not in decide(oof, ("identity",))["expected"]
    decision = decide(replace(oof, geographic=True), ("identity",))
    truth, plain = oof.tiles.masks == 1, oof.probabilities["run"]["identity"] >= 0.5
    each = [miou(truth[oof.folds == fold], plain[oof.folds == fold]) for fold in range(3)]
    found = decision["baseline"]["regions"]
    assert [found["scores"][str(fold)] for fold in range(3)] == pytest.approx(each, abs=1e-12)
    assert (found["min"], found["max"], found["std"]) == pytest.approx((min(each), max(each), np.std(each, ddof=1)))
    assert set(decision["nested"]["regions"]["scores"]) == {"0", "1", "2"}


def test_on_noise_the_nested_figure_does_not_flatter():
    """On probabilities independent of the masks, decisions gain on the tiles they were chosen on, and only there."""
    gains, flattery = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        masks = (rng.random((6, 8, 8)) < 0.5).astype(np.uint8)
        run, other = ({name: rng.random(masks.shape) for name in VIEW_SETS["flips"]} for _ in range(2))
        decision = decide(out_of_fold(masks, run, [0, 0, 1, 1, 2, 2], other=other), ("identity", "flips"))
        gains.append(decision["gain"]["miou"])
        best = max(best["miou"] for best in decision["view_sets"].values())
        flattery.append(best - decision["baseline"]["scores"]["miou"])
        if gains[-1] <= 0:
            plain = Decision(weights={"run": 0.5, "other": 0.5}).to_values()
            assert {key: decision[key] for key in plain} == plain
            assert not any(row["kept"] for row in decision["elements"])
    error = np.std(gains) / np.sqrt(len(gains))
    assert min(flattery) > 0 and np.mean(flattery) > 0.02
    assert np.mean(gains) < 2 * error and np.mean(gains) < np.mean(flattery) / 4
    assert np.mean(np.array(gains) <= 0) > 0.5  # mostly the plain decision is kept


def test_the_plain_decision_is_kept_where_tuning_does_not_help():
    rng = np.random.default_rng(0)
    masks = (rng.random((4, 8, 8)) < 0.5).astype(np.uint8)
    # In fold 0 the truth begins at 0.35, in fold 1 at 0.65: what is best in one is wrong in the other, and 0.5 is right
    # in neither.
    edges = np.array([0.35, 0.35, 0.65, 0.65])[:, None, None]
    view = np.where(masks == 1, edges + 0.05, edges - 0.05) + rng.uniform(-0.02, 0.02, masks.shape)
    decision = decide(out_of_fold(masks, {"identity": view}, [0, 0, 1, 1]), ("identity",))
    assert [row["miou"] < 0.4 for row in decision["nested"]["per_fold"]] == [True, True]
    assert decision["gain"]["miou"] <= 0 and not any(row["kept"] for row in decision["elements"])
    assert (decision["views"], decision["threshold"]) == ("identity", 0.5)
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
    kept = {row["element"]: row["value"] for row in decision["elements"] if row["kept"]}
    assert {"threshold", "views"} <= set(kept) and "biased upward" in decision["bias"]
    assert all(
        value == decision[element] for element, value in kept.items()
    )  # one threshold, chosen again with the views
    assert (
        decision["expected"]["scores"] == decision["nested"]["scores"] and decision["expected"]["scores"]["miou"] > 0.95
    )


def test_one_fold_cannot_be_nested():
    oof = planted(folds=1)
    decision = decide(oof, ("identity",))
    assert decision["nested"] is None and decision["gain"] is None and decision["folds"] == [0]
    assert decision["min_area"] and {"weights", "min_area"} <= {
        row["element"] for row in decision["elements"] if row["kept"]
    }
    assert decision["tuned"]["scores"]["miou"] == pytest.approx(
        miou(oof.tiles.masks == 1, by_hand(oof, decision)), abs=1e-4
    )
    # The tuned score is optimistic; the expected one is that of the plain decision.
    assert decision["expected"]["scores"] == decision["baseline"]["scores"] != decision["tuned"]["scores"]


def test_one_fold_is_decided_on_halves_of_its_blocks():
    oof = made_up(0, folds=1)
    tables = CountTables(replace(oof, blocks=np.array([f"b{i // 2}" for i in range(9)])))
    assert tables.half.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0] and tables.groups((0, 1)) == [(0,), (1,)]
    assert CountTables(made_up(0, 3)).groups(tuple(range(6))) == [(0, 1), (2, 3), (4, 5)]


def separated(values: list[tuple[int, float]], sets: tuple[str, ...], **worse: list[float]) -> NestedSearch:
    """Return a search on one row of pixels (class, probability), in all views alike but those that are worse."""
    masks = np.array([[[label for label, _ in values]]], np.uint8)
    views = {name: np.array([[worse.get(name, [probability for _, probability in values])]]) for name in VIEWS}
    return NestedSearch(CountTables(out_of_fold(masks, views, [0])), sets, 200)


def test_among_equals_the_first_set_and_the_lowest_threshold_win():
    pixels = [(0, 0.2), (0, 0.3), (1, 0.6), (1, 0.9)]
    for order in (("rotations", "d4"), ("d4", "rotations")):
        search = separated(pixels, order, identity=[0.2, 0.95, 0.6, 0.9], rot180=[0.2, 0.0, 0.6, 0.9])
        chosen = search.choose(("threshold", "views"), (0,))
        assert chosen.view_set == order[0] and 0.2 < chosen.threshold < 0.5
    chosen = separated(pixels, ("rotations", "d4")).choose(("threshold", "views"), (0,))
    assert (chosen.view_set, chosen.threshold) == ("identity", 0.301)  # the plain set is the first


def test_a_threshold_near_one_is_found_where_the_probabilities_call_for_it():
    # The background lies below 0.95, the landslide at it or above: RMAU-Net's best threshold (Table IX).
    rng = np.random.default_rng(0)
    masks = (rng.random((9, 12, 12)) < 0.3).astype(np.uint8)
    low, high = np.float16(0.9497), np.nextafter(np.float16(0.95), np.float16(1))  # neighbours in float16
    probability = np.where(masks, rng.uniform(0.951, 1, masks.shape), rng.uniform(0.6, 0.949, masks.shape))
    probability[:, 0, 0], masks[:, 0, 0] = low, 0
    probability[:, 0, 1], masks[:, 0, 1] = high, 1
    decision = decide(out_of_fold(masks, {"identity": probability}, [i % 3 for i in range(9)]), ["identity"])
    assert (
        decision["threshold"] == 0.95
        and decision["nested"]["scores"]["miou"] == 1 > decision["baseline"]["scores"]["miou"]
    )
    assert [fold["threshold"] for fold in decision["nested"]["per_fold"]] == [0.95] * 3
    assert [row["element"] for row in decision["elements"] if row["kept"]] == ["threshold"]  # nothing is left to gain


def test_a_threshold_is_never_zero():
    for pixels in ([(1, 0.0), (1, 0.5)], [(1, 0.5)] * 3):  # at 0 all would be right
        assert separated(pixels, ("identity",)).choose(("threshold",), (0,)).threshold == 0.001


def fake_run(folder: Path, name: str, digests: dict[int, str]) -> Run:
    run = Run.create(folder / name, Config(), Splits("blocks", 2, ()), FINGERPRINT)
    for fold, digest in digests.items():
        run.fold_path(fold).mkdir()
        (run.fold_path(fold) / "metrics.json").write_text(json.dumps(metrics(digest * 32, fold)))
    return run


def test_a_decision_about_other_weights_is_refused(tmp_path):
    a, b = fake_run(tmp_path, "a", {0: "aa", 1: "ab"}), fake_run(tmp_path, "b", {0: "ba", 1: "bb"})
    assert (
        decision_path([a]) == tmp_path / "a" / "decision.json"
        and decision_path([a, b]) == tmp_path / "a+b" / "decision.json"
    )
    assert read_decision([a], [0, 1]) is read_decision([a, b], [0]) is None

    def decided(runs, digests):
        members = {run: {fold: digest * 32 for fold, digest in folds.items()} for run, folds in digests.items()}
        folds = [int(fold) for fold in next(iter(members.values()))]
        decision = {"runs": list(members), "folds": folds, "members": members, "views": "d4", "threshold": 0.4}
        decision_path(runs).parent.mkdir(exist_ok=True)
        decision_path(runs).write_text(json.dumps(decision))
        return Decision().to_values() | decision | {"for": "published"}  # without a purpose

    decision = decided([a], {"a": {"0": "aa", "1": "ab"}})
    assert read_decision([a], [0, 1]).to_json() == decision
    # It was written before there was more to decide.
    assert (decision["weights"], decision["averaging"], decision["min_area"], decision["max_hole"]) == (
        None,
        "probability",
        0,
        0,
    )
    decision = decided([a], {"a": {"0": "aa"}})  # fold 1 came later, fold 0 is as it was
    assert read_decision([a], [0, 1]).to_json() == decision
    decided([a], {"a": {"0": "0d", "1": "0d"}})
    with pytest.raises(
        DecisionError,
        match=r"a/decision\.json was taken before fold 0, 1 of run a was trained anew\. Run marsls tune again",
    ):
        read_decision([a], [0, 1])
    decision = decided([a], {"a": {"0": "aa", "1": "0d"}})
    assert read_decision([a], [0]).to_json() == decision  # fold 1 is not used
    decided([a, b], {"a": {"0": "aa", "1": "ab"}, "b": {"0": "ba", "1": "0d"}})
    with pytest.raises(DecisionError, match=r"a\+b/decision\.json was taken before fold 1 of run b"):
        read_decision([a, b], [0, 1])
    assert read_decision([b], [0, 1]) is None
