"""The decision: how predictions of members and views become masks, with what tuning measured of it."""

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
    """A decision cannot be followed: its file is damaged or was edited, or it is about other runs or other weights.

    Example:
        >>> try:
        ...     Decision.from_json({"threshold": 2.0})
        ... except DecisionError as error:
        ...     print(str(error).splitlines()[0])
        The decision is damaged, was edited, or is of another version:
    """


@dataclass(frozen=True, init=False)
class Decision:
    """How mean probabilities become masks.

    It is immutable and hashable. `decision[element]` is the value of an element; those that code reads by name are
    properties.

    Attributes:
        values: (name, value) of each element, in the order in which they act.
        tuning: What tuning measured; None for a decision that nobody tuned.

    Args:
        tuning: Likewise.
        **values: Values of elements by name, in the form of decision.json; those left out are the plain decision's.

    Raises:
        TypeError: If there is no element of a name.
        ValueError: If a value has not the form of its element.

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
        """Name of the set of views that is averaged; "views" in decision.json."""
        return self[VIEWS]

    @property
    def run_weights(self) -> dict[str, float] | None:
        """Weight of each run; None for equal weights. "weights" in decision.json."""
        return WEIGHTS.to_json(self[WEIGHTS])

    @property
    def averaging(self) -> str:
        """What is averaged over views and members, "probability" or "logit"."""
        return self[AVERAGING]

    @property
    def threshold(self) -> float:
        """A pixel is landslide if its mean probability is at least this."""
        return self[THRESHOLD]

    @property
    def max_hole(self) -> int:
        """Holes of at most this many pixels are filled, 0 for none."""
        return self[MAX_HOLE]

    @property
    def min_area(self) -> int:
        """Components of fewer pixels are removed, 0 for none."""
        return self[MIN_AREA]

    @property
    def across_borders(self) -> bool:
        """Whether masks are post-processed in the picture that tiles were cut from, not in each tile alone."""
        return self[ACROSS_BORDERS]

    @property
    def purpose(self) -> Purpose | None:
        """What it was tuned for; None if it was not."""
        return None if self.tuning is None else self.tuning.purpose

    @property
    def expected(self) -> Figures | None:
        """Figures to expect of its masks on new tiles; None if nothing is known of them."""
        return None if self.tuning is None else self.tuning.expected

    @property
    def folds(self) -> list[int]:
        """Folds whose out-of-fold predictions it was tuned on; none if it was not."""
        return [] if self.tuning is None else self.tuning.folds

    @property
    def isolated(self) -> bool:
        """Whether it was tuned with the tiles of a fold taken for all that there are of their picture."""
        return self.tuning is not None and self.tuning.isolated

    @property
    def is_plain(self) -> bool:
        """Whether every element has the value of the plain decision."""
        return all(each.is_plain(self[each]) for each in in_order())

    @property
    def mask_steps(self) -> list[MaskStep[Any]]:
        """The elements that change the masks after the threshold, in their order, without those that leave them as they are."""
        return [each for each in in_order() if isinstance(each, MaskStep) and not each.is_plain(self[each])]

    def replace(self, **values: Any) -> Decision:
        """Return the decision with other values of some elements, in the form of decision.json; arguments as of the class."""
        return Decision(self.tuning, **{**self.to_values(), **values})

    def averages_only(self) -> Decision:
        """Return the decision with all that makes masks of the mean probability left plain; equal ones have the same mean."""
        return Decision(**self.averaging_values())

    def segment(
        self, probability: np.ndarray, refs: Sequence[TileRef], size: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Return the masks of tiles.

        Args:
            probability: Mean probability (N, H, W), float32, at the tiles' own size.
            refs: The tiles, N of them. Across their borders nothing is known but these.
            size: Height and width that the networks saw, where `data.resize` is another size: areas were chosen in its
                pixels, and are scaled.

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
        """Apply all steps after the threshold to masks of tiles or of a picture; arguments as of `MaskStep.apply`."""
        for step in self.mask_steps:
            masks = step.apply(self[step], masks, known, scale) & known
        return masks

    def full_size(
        self, small: np.ndarray, refs: Sequence[TileRef], sizes: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield probability, float32 (H, W), and mask, uint8 (H, W) of {0, 1}, of each tile at its own size.

        Tiles of different sizes are not those of one grid, so each is segmented for itself, as one without known
        neighbours.

        Args:
            small: Mean probability (N, h, w), float32, at the size that the networks saw.
            refs: The tiles, N of them.
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
        """Return the decision as it can be followed on some tiles.

        Where it is not known where each tile lies, views of windows become those of single tiles, and post-processing
        ends at their borders. What score to expect is then unknown.

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
        """Return the decision in words, without what it leaves as it is."""
        return ", ".join(each.text(self[each]) for each in in_order() if each.is_said(self[each]))

    def to_values(self) -> dict[str, Any]:
        """Return the values of the elements as decision.json has them."""
        return {each.name: each.to_json(self[each]) for each in in_order()}

    def averaging_values(self) -> dict[str, Any]:
        """Return the values of the elements that make the mean probability, as decision.json has them."""
        return {each.name: each.to_json(self[each]) for each in in_order() if each.averages}

    def to_json(self) -> dict[str, Any]:
        """Return the content of decision.json; of a decision that was not tuned, the values alone."""
        if self.tuning is None:
            return self.to_values()
        content = self.tuning.model_dump(mode="json", by_alias=True, exclude_unset=True)
        head = {key: content.pop(key) for key in ("runs", "folds", "members", "for", "isolated") if key in content}
        return head | self.to_values() | content

    def sealed(self) -> Decision:
        """Return the decision with the SHA-256 of what it says.

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
            >>> Decision(tuning, threshold=0.45).write("/tmp/decision.json")
            >>> Decision.read("/tmp/decision.json").threshold
            0.45
        """
        write_json(Path(path), self.sealed().to_json())

    @classmethod
    def read(cls, path: str | Path) -> Decision:
        """Read decision.json.

        Raises:
            DecisionError: If it is missing, damaged, not of the form, or was edited since it was sealed: the scores in
                it would be those of another decision.
        """
        try:
            content = read_json(path)
        except InputError as error:
            raise DecisionError(str(error)) from None
        decision = cls.from_json(content, path)
        if content.get("sha256") not in (None, digest_of(content)):  # earlier versions did not seal it
            raise DecisionError(
                f"{path} was edited or damaged since marsls tune wrote it, so the scores in it are not those of this decision. Run marsls "
                "tune again; or, if it is meant so, remove its key sha256."
            )
        return decision

    @classmethod
    def from_values(cls, values: dict[str, Any], source: str | Path) -> Decision:
        """Return a decision from values of elements that a file holds.

        Args:
            values: As the arguments of the class.
            source: The file, which errors name.

        Raises:
            DecisionError: If there is no element of a name, or a value has not the form of its element.

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
        """Return the decision of the content of decision.json. Its seal is not looked at.

        Args:
            content: The content.
            source: What errors name.

        Raises:
            DecisionError: If the content has not the form; every key that is wrong is named.

        Example:
            >>> content = {"runs": ["base"], "folds": [0], "members": {"base": {"0": "ab" * 32}}, "views": "d4", "threshold": 0.45}
            >>> Decision.from_json(content).view_set
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
