"""Markdown pages: links and named modules exist, and the tables list every recipe."""

import re
from pathlib import Path

import pytest

from marsls_keras.config import recipe_folder, recipes

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(recipe_folder().glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub generates them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [
        link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")) if not link.startswith("http")
    ]
    assert links or page.name != "README.md"
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_modules_that_are_named_exist():
    for page in PAGES:
        for name in re.findall(r"(?:marsls_keras|competition)(?:\.\w+)+", page.read_text(encoding="utf-8")):
            path = ROOT.joinpath(*name.split("."))
            parents = [path, path.parent, path.parent.parent]  # a module, a name in it, or an attribute of that
            assert any(p.with_suffix(".py").exists() or (p / "__init__.py").exists() for p in parents if p != ROOT), (
                f"{name} in {page.name}"
            )


def source(path: Path) -> str:
    """Return the source of a module, or of the `__init__` of a package."""
    return (path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py").read_text(
        encoding="utf-8"
    )


def test_every_recipe_is_in_the_table_of_recipes():
    for page, column in (
        (recipe_folder() / "README.md", set(recipes())),
        (ROOT / "README.md", set(recipes()) - {"demo"}),
    ):
        text = page.read_text(encoding="utf-8")
        table = text[text.index("| recipe |") :].partition("\n\n")[0]
        assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == column, page
