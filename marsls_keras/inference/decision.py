"""Decision: the parameters that turn predictions of ensemble members and views into masks, and their tuning figures."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from marsls_keras.data.formats.tile import resample
from marsls_keras.data.grid.stitching import stitch
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.errors import InputError
from marsls_keras.files import read_json, write_json
from marsls_keras.inference.decision_elements import ELEMENTS, Element, MaskStep, in_order
from marsls_keras.inference.decision_elements.across_borders import ACROSS_BORDERS
from marsls_keras.inference.decision_elements.averaging import AVERAGING
from marsls_keras.inference.decision_elements.max_hole import MAX_HOLE
from marsls_keras.inference.decision_elements.min_area import MIN_AREA
from marsls_keras.inference.decision_elements.threshold import THRESHOLD
from marsls_keras.inference.decision_elements.views import VIEWS
from marsls_keras.inference.decision_elements.weights import WEIGHTS
from marsls_keras.inference.decision_record import Figures, Tuning, decision_form, digest_of
from marsls_keras.inference.purpose import Purpose
from marsls_keras.inference.sliding_window import stitchable
from marsls_keras.json_records import require_record

logger = logging.getLogger(__name__)

Value = TypeVar("Value", bound=Hashable)


class DecisionError(InputError):
    """Report a decision that cannot be used: its file is damaged or was edited, or it is for other runs or weights.

    Example:
        >>> try:
        ...     Decision.from_json({"threshold": 2.0})
        ... except DecisionError as error:
        ...     print(str(error).splitlines()[0])
        The decision is damaged, was edited, or is of another version:
    """


@dataclass(frozen=True, init=False)
class Decision:
    """Parameters of the averaging of predictions, the threshold and the post-processing of masks.

    A decision consists of elements, such as the threshold (`marsls_keras.inference.decision_elements`). It is immutable
    and hashable. `decision[element]` is the value of an element; the most used values are also properties.

    Attributes:
        values: (name, value) of each element, in the order in which the elements are applied.
        tuning: Scores and other results of tuning; None for a decision that was not tuned.

    Args:
        tuning: Likewise.
        **values: Values of elements by name, in the form of decision.json; the plain decision's by default.

    Raises:
        TypeError: If there is no element of a name.
        ValueError: If a value does not have the type of its element.

    Example:
        >>> decision = Decision(views="d4", threshold=0.45, min_area=24)
        >>> decision.describe()
        'views d4, threshold 0.45, components below 24 pixels removed'
        >>> decision.replace(min_area=0).threshold
        0.45
    """

    values: tuple[tuple[str, Hashable], ...]
    tuning: Tuning | None = field(hash=False)

    def __init__(self, tuning: Tuning | None = None, **values: Any):
        if unknown := sorted(set(values) - set(ELEMENTS)):
            raise TypeError(f"A decision has the elements {', '.join(ELEMENTS)}. Received: {', '.join(unknown)}")
        parsed = tuple((each.name, each.parse(values.get(each.name, each.default))) for each in in_order())
        object.__setattr__(self, "values", parsed)
        object.__setattr__(self, "tuning", tuning)

    def __getitem__(self, element: Element[Value]) -> Value:
        """Return the value of an element."""
        return dict(self.values)[element.name]  # type: ignore[return-value]

    def __repr__(self) -> str:
        shown = [f"{each.name}={each.to_json(self[each])!r}" for each in in_order() if each.is_said(self[each])]
        return f"Decision({', '.join(shown)})"

    @property
    def view_set(self) -> str:
        """Name of the set of test-time augmentation views that are averaged; "views" in decision.json."""
        return self[VIEWS]

    @property
    def run_weights(self) -> dict[str, float] | None:
        """Weight of each run; None for equal weights. "weights" in decision.json."""
        return WEIGHTS.to_json(self[WEIGHTS])

    @property
    def averaging(self) -> str:
        """Quantity that is averaged over views and members, "probability" or "logit"."""
        return self[AVERAGING]

    @property
    def threshold(self) -> float:
        """Least mean probability of a pixel that becomes landslide."""
        return self[THRESHOLD]

    @property
    def max_hole(self) -> int:
        """Size in pixels of the largest holes that are filled, 0 for none."""
        return self[MAX_HOLE]

    @property
    def min_area(self) -> int:
        """Size in pixels below which components are removed, 0 for none."""
        return self[MIN_AREA]

    @property
    def across_borders(self) -> bool:
        """Whether masks are post-processed in the raster that the tiles were cut from, not in each tile alone."""
        return self[ACROSS_BORDERS]

    @property
    def purpose(self) -> Purpose | None:
        """Purpose that the decision was tuned for; None if it was not tuned."""
        return None if self.tuning is None else self.tuning.purpose

    @property
    def expected(self) -> Figures | None:
        """Expected scores of its masks on new tiles; None if they are unknown."""
        return None if self.tuning is None else self.tuning.expected

    @property
    def folds(self) -> list[int]:
        """Folds whose out-of-fold predictions the decision was tuned on; empty if it was not tuned."""
        return [] if self.tuning is None else self.tuning.folds

    @property
    def isolated(self) -> bool:
        """Whether the decision was tuned on predictions in which windows saw only tiles of the same fold."""
        return self.tuning is not None and self.tuning.isolated

    @property
    def is_plain(self) -> bool:
        """Whether every element has the value of the plain decision."""
        return all(each.is_plain(self[each]) for each in in_order())

    @property
    def mask_steps(self) -> list[MaskStep[Any]]:
        """Post-processing steps after the threshold, in order, without those that have no effect."""
        return [each for each in in_order() if isinstance(each, MaskStep) and not each.is_plain(self[each])]

    def replace(self, **values: Any) -> Decision:
        """Return a copy with other values of some elements.

        Args:
            **values: Values by name, in the form of decision.json.

        Raises:
            TypeError: If there is no element of a name.
            ValueError: If a value does not have the type of its element.
        """
        return Decision(self.tuning, **{**self.to_values(), **values})

    def averages_only(self) -> Decision:
        """Return a copy that keeps only views, weights and averaging, the elements that determine the mean probability.

        Two decisions with equal copies have the same mean probability.
        """
        return Decision(**self.averaging_values())

    def segment(
        self, probability: np.ndarray, refs: Sequence[TileRef], size: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Threshold and post-process the mean probability of tiles.

        Args:
            probability: Mean probability (N, H, W), float32, at the tiles' own size.
            refs: The N tiles. Post-processing across tile borders uses these alone.
            size: Height and width of the network's input, where `data.resize` differs from the tiles' own size: areas
                were chosen in pixels of that size, and are scaled.

        Returns:
            uint8 of {0, 1}, of the same shape.

        Raises:
            ValueError: If masks are post-processed across borders and two tiles claim the same place.

        Example:
            >>> tile = TileRef("t/0", Path("0.tif"), None, "t", "a", None)
            >>> Decision(threshold=0.4).segment(np.array([[[0.3, 0.4]]], np.float32), [tile])
            array([[[0, 1]]], dtype=uint8)
        """
        scale = 1.0 if size is None else float(np.prod(probability.shape[1:]) / np.prod(size))
        masks = probability >= np.float32(self.threshold)
        if not self.across_borders:
            return self.post_process(masks, np.ones_like(masks), scale).astype(np.uint8)
        layers = np.stack([masks, np.ones_like(masks)], axis=-1)
        for picture, put_back in stitch(refs, layers):
            known = picture[..., 1]
            put_back(np.stack([self.post_process(picture[..., 0], known, scale), known], axis=-1))
        return layers[..., 0].astype(np.uint8)

    def post_process(self, masks: np.ndarray, known: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Apply all post-processing steps to masks of tiles or of a raster; arguments as in `MaskStep.apply`."""
        for step in self.mask_steps:
            masks = step.apply(self[step], masks, known, scale) & known
        return masks

    def full_size(
        self, small: np.ndarray, refs: Sequence[TileRef], sizes: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield probability, float32 (H, W), and mask, uint8 (H, W) of {0, 1}, of each tile at its own size.

        Tiles of different sizes do not form one grid, so each is then segmented alone, without its neighbours.

        Args:
            small: Mean probability (N, h, w), float32, at the size of the network's input.
            refs: The N tiles.
            sizes: Height and width of each tile.
        """
        if self.across_borders and len(set(sizes)) == 1:
            large = np.stack([resample(values, *sizes[0], order=1) for values in small])
            yield from zip(large, self.segment(large, refs, small.shape[1:]), strict=True)
            return
        alone = self.replace(across_borders=False)
        for values, ref, (height, width) in zip(small, refs, sizes, strict=True):
            one = resample(values, height, width, order=1)[None]
            yield one[0], alone.segment(one, [ref], small.shape[1:])[0]

    def fit(self, refs: Sequence[TileRef]) -> Decision:
        """Return the decision adapted to tiles whose positions may be unknown.

        Where the position of a tile is unknown, views of windows become views of single tiles, and post-processing
        stops at tile borders. The expected score is then unknown.

        Args:
            refs: The tiles.

        Example:
            >>> tile = TileRef("t/0", Path("0.tif"), None, "t", "a", None)
            >>> Decision(views="d4@256").fit([tile]).view_set
            'd4'
        """
        found = {each: each.without_places(self[each]) for each in in_order()}
        notes = [note for _, note in found.values() if note]
        if not notes or stitchable(refs):
            return self
        logger.info(f"The names of these tiles do not tell where each lies: {', '.join(notes)}.")
        tuning = self.tuning and self.tuning.model_copy(update={"expected": None})
        return Decision(tuning, **{each.name: each.to_json(value) for each, (value, _) in found.items()})

    def describe(self) -> str:
        """Describe the decision in words, without elements that have no effect."""
        return ", ".join(each.text(self[each]) for each in in_order() if each.is_said(self[each]))

    def to_values(self) -> dict[str, Any]:
        """Return the values of all elements in the form of decision.json."""
        return {each.name: each.to_json(self[each]) for each in in_order()}

    def averaging_values(self) -> dict[str, Any]:
        """Return the values of the elements that determine the mean probability, in the form of decision.json."""
        return {each.name: each.to_json(self[each]) for each in in_order() if each.averages}

    def to_json(self) -> dict[str, Any]:
        """Return the content of decision.json; for a decision that was not tuned, only the values of its elements."""
        if self.tuning is None:
            return self.to_values()
        content = self.tuning.model_dump(mode="json", by_alias=True, exclude_unset=True)
        head = {key: content.pop(key) for key in ("runs", "folds", "members", "for", "isolated") if key in content}
        return head | self.to_values() | content

    def sealed(self) -> Decision:
        """Return a copy with the SHA-256 of its content.

        Raises:
            ValueError: If it was not tuned.
        """
        if self.tuning is None:
            raise ValueError(f"Only a tuned decision is written to a file. Received: {self}")
        return Decision(self.tuning.model_copy(update={"sha256": digest_of(self.to_json())}), **self.to_values())

    def write(self, path: str | Path) -> None:
        """Write decision.json, sealed, atomically.

        Raises:
            ValueError: If it was not tuned.
            RunError: If the file cannot be written.

        Example:
            >>> tuning = Tuning(runs=["base"], folds=[0], members={"base": {"0": "ab" * 32}})
            >>> Decision(tuning, threshold=0.45).write("decision.json")
            >>> Decision.read("decision.json").threshold
            0.45
        """
        write_json(Path(path), self.sealed().to_json())

    @classmethod
    def read(cls, path: str | Path) -> Decision:
        """Read decision.json.

        Raises:
            DecisionError: If it is missing, damaged, invalid, or was edited since it was written: the scores in it
                would be those of another decision.
        """
        try:
            content = read_json(path)
        except InputError as error:
            raise DecisionError(str(error)) from None
        decision = cls.from_json(content, path)
        if content.get("sha256") not in (None, digest_of(content)):  # earlier versions did not seal it
            raise DecisionError(
                f"{path} was edited or damaged since marsls tune wrote it, so the scores in it are not those of this "
                "decision. Run marsls tune again; or, if it is meant so, remove its key sha256."
            )
        return decision

    @classmethod
    def from_values(cls, values: dict[str, Any], source: str | Path) -> Decision:
        """Create a decision from values that were read from a file.

        Args:
            values: Values of elements by name, as the arguments of the class.
            source: The file, for error messages.

        Raises:
            DecisionError: If there is no element of a name, or a value does not have the type of its element.

        Example:
            >>> Decision.from_values({"views": "d4", "averaging": "logit"}, "full.json").averaging
            'logit'
        """
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise DecisionError(f"{source} is damaged, was edited, or is of another version: {error}") from None

    @classmethod
    def from_json(cls, content: Any, source: str | Path = "The decision") -> Decision:
        """Create a decision from the content of decision.json, without a check of its SHA-256.

        Args:
            content: The content.
            source: The file, for error messages.

        Raises:
            DecisionError: If the content is invalid; every wrong key is named.

        Example:
            >>> tuning = {"runs": ["base"], "folds": [0], "members": {"base": {"0": "ab" * 32}}}
            >>> Decision.from_json({**tuning, "views": "d4", "threshold": 0.45}).view_set
            'd4'
        """
        try:
            require_record(content, decision_form(), source)
        except InputError as error:
            raise DecisionError(str(error)) from None
        values = {name: content[name] for name in ELEMENTS if name in content}
        return cls(
            Tuning.model_validate({key: value for key, value in content.items() if key not in ELEMENTS}), **values
        )
