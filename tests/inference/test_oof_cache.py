"""oof.npz: predictions are read back unchanged, or not at all if the file does not match."""

import numpy as np
import pytest

from marsls_keras.inference.oof_cache import load_oof, save_oof
from marsls_keras.inference.tta import ViewPrediction

IDS = ["train/a", "val/b", "train/ç"]
SHA = "ab" * 32
RNG = np.random.default_rng(0)
VIEWS = {
    "identity": ViewPrediction(RNG.random((3, 4, 6), dtype=np.float32), RNG.random(3, dtype=np.float32)),
    "rot90": ViewPrediction(RNG.random((3, 4, 6), dtype=np.float32), None),
}


def same(one, other):
    """Return whether two predictions, or parts of them, hold the same numbers."""
    if isinstance(one, ViewPrediction):
        return all(map(same, one, other))
    return one is other is None or np.array_equal(one, other)


@pytest.fixture
def path(tmp_path):
    save_oof(tmp_path / "oof.npz", IDS, VIEWS, SHA)
    return tmp_path / "oof.npz"


def test_what_is_written_is_found_within_float16(path):
    found = load_oof(path, IDS, SHA)
    assert list(found) == ["identity", "rot90"]
    for view, (values, landslide) in found.items():
        assert values.dtype == np.float16 and values.shape == (3, 4, 6)
        assert np.abs(values - VIEWS[view].probability).max() < 0.0005
        assert same(landslide, VIEWS[view].landslide)
    save_oof(path, IDS, found, SHA)  # as when another view is added: what was there does not move
    assert all(same(values, found[view]) for view, values in load_oof(path, IDS, SHA).items())


def test_values_are_rounded_down_so_that_masks_at_one_half_stay_the_same(path):
    edge = np.float32(
        [
            0.5,
            np.nextafter(np.float32(0.5), np.float32(0)),
            0.49999,
            0.50001,
            0,
            1,
            1e-9,
            np.nextafter(np.float32(1), np.float32(0)),
        ]
    )
    values = np.concatenate([edge, RNG.normal(0.5, 1e-4, 4000).astype(np.float32), RNG.random(4000, dtype=np.float32)])[
        None, None
    ]
    save_oof(path, ["a"], {"identity": ViewPrediction(values, None)}, SHA)
    found = load_oof(path, ["a"], SHA)["identity"].probability
    assert np.array_equal(found >= 0.5, values >= 0.5) and (found[0, 0, :3] < 0.5).tolist() == [False, True, True]
    # The float16 below or at each value, found by going through all of them.
    all_halves = np.arange(0x3C01, dtype=np.uint16).view(np.float16)  # 0 to 1
    assert np.array_equal(found, all_halves[np.searchsorted(all_halves.astype(np.float32), values, side="right") - 1])


@pytest.mark.parametrize(
    "ids,sha",
    [
        (IDS, "cd" * 32),
        (IDS[:2], SHA),
        ([*IDS, "train/d"], SHA),
        (IDS[::-1], SHA),
        (["train/a", "val/b", "train/d"], SHA),
        ([], SHA),
    ],
)
def test_other_weights_or_tiles_find_nothing(path, ids, sha):
    assert load_oof(path, ids, sha) == {}


def test_no_file_or_no_archive_finds_nothing(tmp_path):
    assert load_oof(tmp_path / "none.npz", IDS, SHA) == {}
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", ids=np.array(IDS))
    np.savez(
        tmp_path / "objects.npz", ids=np.array(IDS), weights=np.array(SHA), view_identity=np.array([{}], dtype=object)
    )
    (tmp_path / "folder.npz").mkdir()
    for name in ("text.npz", "other.npz", "objects.npz", "folder.npz"):
        assert load_oof(tmp_path / name, IDS, SHA) == {}, name


def test_a_file_that_is_cut_off_finds_nothing(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert load_oof(path, IDS, SHA) == {}, length


def test_a_changed_byte_is_never_taken_for_a_prediction(path):
    """After a change of any byte the predictions are read back unchanged, or not at all."""
    whole, found = path.read_bytes(), load_oof(path, IDS, SHA)
    directory = whole.index(
        b"PK\1\2"
    )  # of the archive, at its end; most of what zipfile says about damage it says here
    places = [*range(0, directory, 11), *range(directory, len(whole))]
    lost = 0
    for place in places:
        for change in (1, 8, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= change
            path.write_bytes(damaged)
            again = load_oof(path, IDS, SHA)
            assert all(
                view in found and same(values.probability, found[view].probability) for view, values in again.items()
            ), (
                place,
                change,
            )
            lost += len(again) < len(found)
    assert lost > len(places)
