"""The application as a whole: its description, its page, and what it needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from served import fake_settings, problem, serving

import ffavatar
from ffavatar.errors import InputError
from ffavatar.serve.app import need_extra
from ffavatar.serve.routes_files import PAGE
from ffavatar.viewer import BUNDLE

ROUTES = {
    "/api/about": {"get"}, "/api/session": {"post"}, "/api/photos": {"post"}, "/api/photos/{id}": {"get", "delete"},
    "/api/photos/{id}/crop": {"get"}, "/api/photos/{id}/matte": {"get"}, "/api/films": {"post"},
    "/api/films/{id}": {"get", "delete"}, "/api/motions": {"post"}, "/api/motions/{id}": {"get", "delete"},
    "/api/jobs": {"post"}, "/api/jobs/{id}": {"get", "delete"},
    "/api/jobs/{id}/events": {"get"}, "/api/files/{job}/{name}": {"get"}, "/api/files/{job}": {"delete"},
    "/api/avatars": {"get"}, "/api/avatars/{id}": {"get", "patch", "delete"}, "/api/avatars/{id}/container": {"get"},
    "/api/avatars/{id}/thumbnail": {"get"}, "/healthz": {"get"}, "/metrics": {"get"},
}  # fmt: skip


def test_the_description_is_whole(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {path: set(methods) for path, methods in document["paths"].items()} == ROUTES
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], f"{method} {path} says nothing of itself"
            for status in ("4XX", "503"):
                content = operation["responses"][status]["content"]
                assert content["application/json"]["schema"]["$ref"].endswith("/ProblemDetails"), path
    body = document["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["discriminator"]["mapping"]) == {"reconstruct", "personalize", "drive", "export"}
    form = document["paths"]["/api/photos"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["files"]["items"]["format"] == "binary"
    fields = {
        "id", "kind", "state", "position", "stage", "done", "total", "seconds_left", "error", "avatar", "files",
        "notes", "created", "finished",
    }  # fmt: skip
    assert set(schemas["Job"]["properties"]) == fields


OPTIONS = {
    "ReconstructRequest": {"photos", "name", "personalize", "look"},
    "PersonalizeRequest": {"avatar", "photos"},
    "DriveRequest": {"avatar", "film", "relative", "same_person", "size"},
    "ExportRequest": {"avatar", "format", "motion", "frame", "scale", "size", "background", "allow_flame"}
    | {"yaw", "pitch", "roll", "expression"},
}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
DOCS = Path(__file__).parents[2] / "docs" / "serve.md"


def test_every_option_of_a_job_is_described(client: httpx.Client) -> None:
    """In the description that programs read, by the names that the server takes, and in docs/serve.md."""
    document = client.get("/openapi.json").json()
    row = next(line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `POST /api/jobs`"))
    for name, options in OPTIONS.items():
        properties = document["components"]["schemas"][name]["properties"]
        assert set(properties) == options | {"kind"}
        for option in options:
            assert len(properties[option]["description"]) > 10, f"{name}.{option} says nothing of itself"
            assert f"`{option}`" in row, f"docs/serve.md does not tell of {option}"
    order = document["components"]["schemas"]["ExportRequest"]["properties"]
    assert (order["yaw"]["minimum"], order["yaw"]["maximum"]) == (-180, 180)
    assert order["expression"]["additionalProperties"]["maximum"] == 3
    assert {"minimum": 64, "maximum": 4096, "type": "integer"} in order["size"]["anyOf"]
    face = document["paths"]["/api/photos"]["post"]["parameters"][0]
    assert face["name"] == "face" and face["in"] == "query" and len(face["description"]) > 10
    assert FLAG.findall(client.get("/openapi.json").text) == []


def spoken(path: Path) -> list[str]:
    """The strings of a module that people may read: neither docstrings nor the arguments of child processes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    quiet: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            quiet.add(id(node.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument"):
            quiet |= {id(argument) for argument in node.args}
    strings = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [node.value for node in strings if id(node) not in quiet and " " in node.value]


def test_sentences_that_reach_clients_name_no_option_of_the_command_line() -> None:
    """Whoever asks over HTTP has none; but what the server's own start says is for whoever started it."""
    root = Path(ffavatar.__file__).parent
    for_the_starter = {"settings.py", "store.py", "server.py"}
    modules = [path for path in (root / "serve").glob("*.py") if path.name not in for_the_starter]
    modules += [*(root / "photo").glob("*.py"), *(root / "personal").glob("*.py")]
    modules += [root / "drive" / name for name in ("choose.py", "video.py", "steady.py", "writer.py", "adjust.py")]
    said = [(path.name, sentence) for path in modules for sentence in spoken(path)]
    assert len(said) > 150
    flags = {(name, flag) for name, sentence in said for flag in FLAG.findall(sentence)}
    assert flags == {("guard.py", "--allowed-host")}  # which names the one who can do something about it


def test_about_says_the_limits(client: httpx.Client) -> None:
    about = client.get("/api/about").json()
    assert set(about) == {"version", "device", "limits", "personalize", "webcam", "heic"} and about["webcam"] is False
    assert about["heic"] is True  # what the tests need includes the decoder
    films = {"film_bytes", "film_seconds", "motion_bytes"}
    assert set(about["limits"]) == {"photos", "photo_bytes", "photo_pixels", "queue"} | films


def test_the_page_and_the_viewer_come_from_here(client: httpx.Client) -> None:
    for path in ("/", "/viewer/ff-avatar.js"):
        head = client.head(path)
        assert head.status_code == 200 and not head.content
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    if (PAGE / "index.html").is_file():
        assert page.content == (PAGE / "index.html").read_bytes()
        for path in PAGE.glob("*.js"):
            sent = client.get(f"/assets/{path.name}")
            assert sent.content == path.read_bytes() and sent.headers["content-type"].startswith("text/javascript")
    else:
        assert "/openapi.json" in page.text
    bundle = client.get("/viewer/ff-avatar.js")
    assert bundle.content == BUNDLE.read_bytes() and bundle.headers["content-type"].startswith("text/javascript")
    kept = client.get("/viewer/ff-avatar.js", headers={"If-None-Match": bundle.headers["etag"]})
    assert kept.status_code == 304
    problem(client.get("/assets/index.html"), 404)


def test_the_webcam_files_are_sent_where_they_are(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cam" / "wasm").mkdir(parents=True)
    (tmp_path / "cam" / "vision_bundle.mjs").write_text("export {}")
    (tmp_path / "cam" / "wasm" / "vision.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret").write_text("no")
    with serving(fake_settings(folder, webcam=tmp_path / "cam")) as client:
        assert client.get("/api/about").json()["webcam"] is True
        assert client.get("/webcam/vision_bundle.mjs").headers["content-type"].startswith("text/javascript")
        assert client.get("/webcam/wasm/vision.wasm").headers["content-type"] == "application/wasm"
        problem(client.get("/webcam/wasm/../../secret"), 404)
        problem(client.get("/webcam/%2e%2e/secret"), 404)


def test_wrong_addresses_and_methods_are_problems(client: httpx.Client) -> None:
    assert "openapi" in problem(client.get("/nothing"), 404)
    problem(client.put("/api/jobs", json={}), 405)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"uvicorn.*ffavatar\[serve\]"):
        need_extra()


def test_the_server_itself_loads_no_networks(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ffavatar.serve.settings import Settings; "
        "import ffavatar.serve.server; from ffavatar.serve.app import create_app; "
        f"create_app(Settings(Path({str(tmp_path / 's')!r}))); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'PIL', 'av', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
