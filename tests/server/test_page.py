"""The page's files: what is served, how, and that nothing else can be had."""

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from ivas.server.page import MEDIA_TYPES, page_router

ROOT = Path(__file__).parents[2]
WEB_CLIENT = ROOT / "web_client"
FILES = sorted(
    path.relative_to(WEB_CLIENT).as_posix()
    for path in WEB_CLIENT.rglob("*")
    if path.suffix in MEDIA_TYPES
)


async def get(path: str, *, root: Path | None = None, method: str = "GET") -> httpx.Response:
    app = FastAPI()
    app.include_router(page_router(root))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ivas") as client:
        return await client.request(method, path)


async def test_the_page_is_at_the_root() -> None:
    response = await get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.content == (WEB_CLIENT / "index.html").read_bytes()


@pytest.mark.parametrize("name", FILES)
async def test_every_file_has_its_type_and_its_policy(name: str) -> None:
    response = await get(f"/{name}")
    assert response.status_code == 200
    assert response.content == (WEB_CLIENT / name).read_bytes()
    kind = response.headers["content-type"].partition(";")[0]
    assert kind == MEDIA_TYPES[Path(name).suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_browsers_that_ask_for_a_favicon_get_the_icon() -> None:
    response = await get("/favicon.ico")
    assert response.headers["content-type"] == "image/svg+xml"


async def test_head_has_no_body() -> None:
    response = await get("/", method="HEAD")
    assert response.status_code == 200
    assert response.content == b""


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/package.json", "/../config.py", "/%2e%2e/config.py", "/audio", "//etc/passwd"],
)
async def test_what_is_not_of_the_page_is_a_plain_404(path: str) -> None:
    response = await get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


async def test_files_are_those_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("hello")
    (tmp_path / "secret.txt").write_text("no")
    assert (await get("/", root=tmp_path)).text == "hello"
    assert (await get("/secret.txt", root=tmp_path)).status_code == 404


def test_the_page_is_small() -> None:
    assert sum((WEB_CLIENT / name).stat().st_size for name in FILES) < 64_000


class _Links(HTMLParser):
    """Every address in the page, and everything its policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.refused: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name, value in given.items():
            if name in ("src", "href") and value is not None:
                self.addresses.append(value)
            if name == "style" or name.startswith("on"):
                self.refused.append(f"{tag} {name}")
            if name == "id" and value is not None:
                self.ids.append(value)
        if tag == "style" or (tag == "script" and "src" not in given):
            self.refused.append(tag)


def test_the_page_refers_to_its_own_files_only() -> None:
    links = _Links()
    links.feed((WEB_CLIENT / "index.html").read_text())
    assert links.addresses
    assert set(links.addresses) <= set(FILES)
    assert links.refused == []
    assert len(set(links.ids)) == len(links.ids)


def test_every_element_the_modules_ask_for_exists() -> None:
    links = _Links()
    links.feed((WEB_CLIENT / "index.html").read_text())
    asked = set()
    for name in FILES:
        if name.endswith(".js"):
            source = (WEB_CLIENT / name).read_text()
            asked |= set(re.findall(r'(?:element|setText)\("([^"]+)"', source))
    assert asked
    assert asked <= set(links.ids)


def test_modules_import_modules_that_exist() -> None:
    for name in FILES:
        if not name.endswith(".js"):
            continue
        path = WEB_CLIENT / name
        for address in re.findall(r'(?:from|new URL\()\s*"(\.[^"]+)"', path.read_text()):
            assert (path.parent / address).resolve().is_file(), f"{name}: {address}"
