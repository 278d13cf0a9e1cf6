"""Names of avatars: kept as they were given, refused where nothing of them can be seen."""

from __future__ import annotations

import httpx
from served import make_avatar, problem, upload

from ffavatar.serve.records import title_of


def test_renaming(client: httpx.Client) -> None:
    avatar = make_avatar(client)
    answer = client.patch(f"/api/avatars/{avatar}", json={"name": "../../Bob\x00"})
    assert answer.json()["name"] == "../../Bob"
    for name in ("Anna 11/30/2026", "Me w/o glasses", "<b>x</b>", "张三 & \u00e9"):
        assert client.patch(f"/api/avatars/{avatar}", json={"name": name}).json()["name"] == name
    for nothing in ("", "   ", "\x01 \n"):
        answer = client.patch(f"/api/avatars/{avatar}", json={"name": nothing})
        assert problem(answer, 422) == "name: it is empty; give the avatar a name that can be seen."
        body = {"kind": "reconstruct", "photos": upload(client, "good"), "name": nothing}
        problem(client.post("/api/jobs", json=body), 422)
    assert client.get(f"/api/avatars/{avatar}").json()["name"] == "张三 & \u00e9"
    problem(client.patch(f"/api/avatars/{avatar}", json={"name": 3}), 422)
    problem(client.patch("/api/avatars/..%2F..%2Fjobs", json={"name": "x"}), 404)


def test_names_of_avatars_become_names_of_files() -> None:
    names = {"Anna 11/30/2026": "Anna 11-30-2026", "../../x": "-..-x", "<b>": "-b-", "..": "avatar", "张三": "张三"}
    assert {name: title_of(name) for name in names} == names
