"""Markdown pages: links lead somewhere, modules and recipes exist, and the commands that are shown work."""

import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
from helpers.cli import SETTINGS, succeed

from competition.cli.app import app
from marsls_keras.config import recipe_folder, recipes

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "README.md"
PAGES = [*ROOT.glob("*.md"), *(page for room in ("competition", "configs", "marsls_keras", "submissions", "tests")
                               for page in sorted((ROOT / room).rglob("*.md")))]  # fmt: skip
COMMANDS = typer.main.get_command(app)
LARGEST_README = 8_000  # bytes


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub generates them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead to no file or heading of the repository."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target == ROOT or ROOT in target.parents
        if not (inside and target.exists() and (not anchor or anchor in anchors(target))):
            wrong.append(link)
    return wrong


def blocks(page: Path) -> list[str]:
    """Return the lines of a page that stand in indented or fenced blocks."""
    lines, fenced = [], False
    for line in text_of(page).splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip())
    return lines


def commands(page: Path) -> list[list[str]]:
    """Return the words after `marsls` of the commands in a page's blocks."""
    found = []
    for line in blocks(page):
        for part in line.partition(" #")[0].split("&&"):
            if match := re.match(r"(?:srun )?(?:[A-Z_]+=\S+ )*marsls (.*)$", part.strip()):
                found.append(shlex.split(match[1]))
    return found


def parse(words: list[str]) -> str:
    """Parse a command line without running the command, and return the command's name."""
    if words[0].startswith("--"):  # an option of marsls itself, which would act while it is parsed
        assert words[0] in {option for parameter in COMMANDS.params for option in parameter.opts}
        return ""
    group, rest, parent, path = COMMANDS, words, None, []
    while True:
        context = group.make_context("marsls" if parent is None else path[-1], list(rest), parent=parent)
        if not hasattr(group, "commands"):
            return " ".join(path)
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, group, rest = group.resolve_command(context, rest)
        path.append(name)
        parent = context


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("test_pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# One two\n[a](page.md#one-two) [b](page.md#three) [c](nowhere.md) [d](../x) [e](https://x.y)\n")
    (tmp_path.parent / "x").touch()
    assert broken_links(page) == ["page.md#three", "nowhere.md", "../x"]


def test_pages_are_reachable_from_the_readme():
    seen, left = set(), [README]
    while left:
        page = left.pop()
        seen.add(page)
        for link in re.findall(r"\]\(([^)#\s]+\.md)", text_of(page)):
            target = (page.parent / link).resolve()
            if not link.startswith("http") and target not in seen and target.exists():
                left.append(target)
    assert set(PAGES) - seen <= {ROOT / "CHANGELOG.md", ROOT / "submissions/README.md"}


def test_the_readme_lists_the_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = text_of(README).partition("| extra |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(extras)


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= LARGEST_README


def test_the_modules_that_are_named_exist():
    for page in PAGES:
        for name in re.findall(r"(?:marsls_keras|competition)(?:\.\w+)+", text_of(page)):
            path = ROOT.joinpath(*name.split("."))
            parents = [path, path.parent, path.parent.parent]  # a module, a name in it, or an attribute of that
            assert any(p.with_suffix(".py").exists() or (p / "__init__.py").exists() for p in parents if p != ROOT), (
                f"{name} in {page.name}"
            )


def test_every_recipe_is_in_the_table_of_recipes():
    for page in (recipe_folder() / "README.md", README):
        text = text_of(page)
        table = text[text.index("| recipe |") :].partition("\n\n")[0]
        named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
        assert named == set(recipes()) if page != README else named < set(recipes()), page


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_blocks_are_parsed_by_the_command_line(page):
    for words in commands(page):
        parse(words)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_commands_in_the_text_have_their_options(page):
    for quoted in re.findall(r"`(?:[A-Z_]+=\S+ )*marsls ([a-z][^`]*)`(?! of version 0)", text_of(page)):
        words = quoted.replace("…", "").split()
        command = COMMANDS.commands.get({"tune training": "search"}.get(" ".join(words[:2]), words[0]))
        if len(words) > 1 and hasattr(command, "commands") and words[1] in command.commands:
            command = command.commands[words[1]]
        assert command is not None, quoted
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, quoted


def test_a_command_that_does_not_exist_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("    pip install x && marsls train --nope 3      # a comment\n")
    ((words,),) = [commands(page)]
    with pytest.raises(Exception, match="No such option"):
        parse(words)


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch):
    """All of them in their order on small synthetic tiles, each training with a tiny network for one epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MARSLS_DATA", raising=False)
    succeed("synth", "data", "--train", 12, "--val", 4, "--test", 4, "--size", 32)
    os.rename("data/test", "tiles")
    succeed("synth", "more", "--train", 2, "--val", 2, "--test", 4, "--size", 32, "--seed", 1)
    os.rename("more/test", "data/test")
    shown = commands(README)
    assert [words[0] for words in shown] == ["demo", "check", "train", "tune", "submit", "report", "train", "predict"]
    for words in shown:
        succeed(*words, *(SETTINGS if words[0] == "train" else []))
    for made in ("submissions/default.zip", "runs/default/report.html", "predicted/mask.tif", "runs/mine/config.yaml"):
        assert Path(made).exists(), made


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    succeed("synth", "data", "--train", 2, "--val", 1, "--test", 1, "--size", 32)
    (code,) = re.findall(r"^```python\n(.*?)^```", text_of(README), re.MULTILINE | re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    count, miou = capsys.readouterr().out.split()[-2:]
    assert int(count) == 1_946_097 and 0 < float(miou) < 1
