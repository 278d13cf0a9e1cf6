"""Photos to an avatar over HTTP, by a server started with `ffavatar serve`: needs httpx alone.

python examples/serve_client.py http://127.0.0.1:8460 front.jpg side.jpg
"""

import sys
import time

import httpx

address, *paths = sys.argv[1:]

with httpx.Client(base_url=address, timeout=60) as server:
    sent = server.post("/api/photos", files=[("files", open(path, "rb")) for path in paths]).raise_for_status()
    kept = [photo["id"] for photo in sent.json()["photos"] if photo["kept"]]
    job = server.post("/api/jobs", json={"kind": "reconstruct", "photos": kept}).raise_for_status().json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.5)
        job = server.get(f"/api/jobs/{job['id']}").json()
    if job["state"] != "done":
        raise SystemExit(job["error"])
    avatar = server.get(f"/api/avatars/{job['avatar']}").json()
    with open("me.safetensors", "wb") as file:
        file.write(server.get(avatar["container"]).content)
print(f"me.safetensors: {avatar['gaussians']:,} Gaussians")
