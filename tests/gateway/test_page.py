"""The page of the document: served whole from this package, under a policy that allows nothing else."""

import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from gateway.page import MEDIA_TYPES
from gateway.problems import TYPES
from tests.gateway.served import served

TEXT = {name: files("gateway").joinpath("static", name).read_text() for name in MEDIA_TYPES}


class Page(HTMLParser):
    """Elements with their attributes, and what labels point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, name: str) -> set[str]:
        """Values of an attribute."""
        return {str(attributes[name]) for _, attributes in self.elements if name in attributes}


async def test_all_of_it_is_served_under_a_strict_policy() -> None:
    async with served() as world:
        for path, name in [("/docs", "docs.html"), *((f"/docs/{name}", name) for name in MEDIA_TYPES)]:
            answer = await world.get(path)
            assert (answer.status, answer.body.decode()) == (200, TEXT[name])
            assert answer.headers["Content-Type"] == f"{MEDIA_TYPES[name]}; charset=utf-8"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert set(re.findall(r"-src ([^;]+)", policy)) == {"'none'", "'self'"}


@pytest.mark.parametrize("name", ["other.js", "..", ".", "__init__.py", "%2e%2e%2fapp.py"])
async def test_there_are_no_other_files(name: str) -> None:
    async with served() as world:
        answer = await world.get(f"/docs/{name}")
        assert (answer.status, answer.json["title"]) == TYPES["not-found"]


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_nothing_comes_from_elsewhere(name: str) -> None:
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+|@import|url\(|data:", TEXT[name]) == []


async def test_links_lead_somewhere() -> None:
    page = Page(TEXT["docs.html"])
    async with served() as world:
        for target in page.all("href") | page.all("src") | set(re.findall(r'fetch\("([^"]+)"', TEXT["docs.js"])):
            if target.startswith("#"):
                assert target[1:] in page.all("id")
            else:
                assert (await world.get(target)).status == 200, target


def test_it_runs_no_script_but_its_own_and_has_no_style_of_its_own() -> None:
    page = Page(TEXT["docs.html"])
    assert all(attributes.get("src") for tag, attributes in page.elements if tag == "script")
    assert {tag for tag, _ in page.elements} & {"style", "iframe", "object", "base"} == set()
    assert not any(name == "style" or name.startswith("on") for _, attributes in page.elements for name in attributes)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", ".style"):
        assert way not in TEXT["docs.js"]


def test_it_can_be_used_without_a_mouse_and_by_ear() -> None:
    page = Page(TEXT["docs.html"])
    fields = {attributes["id"] for tag, attributes in page.elements if tag in ("input", "textarea", "select")}
    assert fields == page.all("for")
    assert ("html", {"lang": "en"}) in page.elements
    assert "status" in page.all("role")
    assert "htmlFor: id" in TEXT["docs.js"]
    assert ":focus-visible" in TEXT["docs.css"]


def test_labels_can_be_tried() -> None:
    script = TEXT["docs.js"]
    assert 'parameter.schema.type === "object"' in script
    assert "addLines(query, value)" in script
    assert "placeholder: pairsOf(parameter.schema.example)" in script


def test_both_colour_schemes_have_every_colour() -> None:
    colours = re.findall(r"--\w+: (.*);", TEXT["docs.css"])
    assert len(colours) > 5
    assert all(re.fullmatch(r"light-dark\(#[0-9a-f]{6}, #[0-9a-f]{6}\)", colour) for colour in colours)


def test_what_the_script_asks_the_page_for_is_there() -> None:
    asked = set(re.findall(r'getElementById\("([^"]+)"\)', TEXT["docs.js"]))
    assert asked
    assert asked <= Page(TEXT["docs.html"]).all("id")
