// Drives the avatar by Chromium's fake camera: `node webcam.mjs PACKAGE FOLDER`. FOLDER holds avatar.safetensors, camera.y4m and
// face_landmarker.task; what was seen goes to FOLDER/seen.json.
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { open, serve } from "./browser.mjs";

const [packageFolder, folder] = process.argv.slice(2);
const installed = join(dirname(fileURLToPath(import.meta.url)), "../node_modules/@mediapipe/tasks-vision");
const vision = join(folder, "vision");
mkdirSync(join(vision, "wasm"), { recursive: true });
for (const name of ["vision_bundle.mjs", "wasm/vision_wasm_internal.js", "wasm/vision_wasm_internal.wasm"])
  copyFileSync(join(installed, name), join(vision, name));
copyFileSync(join(folder, "face_landmarker.task"), join(vision, "face_landmarker.task"));
writeFileSync(
  join(folder, "camera.html"),
  `<!doctype html><title>webcam</title><link rel="icon" href="data:,"><meta http-equiv="Content-Security-Policy" content="default-src
  'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'; worker-src blob:; img-src data: blob:">
  <link rel="stylesheet" href="/view/page.css"><script type="module" src="/view/ff-avatar.js"></script>
  <body><ff-avatar controls detail="5k" src="avatar.safetensors" vision="vision"></ff-avatar></body>`,
);
const server = await serve({ "/view/": packageFolder, "/data/": folder });
const { page, requests, problems, close } = await open({
  viewport: { width: 900, height: 700 },
  permissions: ["camera"],
  extra: [
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
    `--use-file-for-fake-video-capture=${join(folder, "camera.y4m")}`,
  ],
});
await page.goto(`${server.origin}/data/camera.html`);
await page.waitForFunction(() => document.querySelector("ff-avatar")?.info, undefined, { timeout: 60_000 });
const seen = {};
seen.askedBefore = requests.some((url) => url.includes("vision"));
await page.evaluate(() => {
  window.avatar = document.querySelector("ff-avatar");
  window.readings = [];
  avatar.addEventListener("ff-webcam", ({ detail }) => readings.push(detail));
});
seen.consent = await page.evaluate(() => avatar.shadowRoot.querySelector(".webcam").textContent);
await page.getByLabel("Like a mirror").uncheck();
await page.getByRole("button", { name: "Allow and start the camera" }).click();
await page.waitForFunction(() => readings.filter((r) => "jawOpen" in r).length > 2, undefined, { timeout: 90_000 });
// two rounds of the film, however fast the machine is
await page.waitForFunction((begun) => performance.now() - begun > 13_000 && readings.length > 60, await page.evaluate(() => performance.now()), { timeout: 120_000 });
await page.screenshot({ path: join(folder, "webcam.png") });
seen.state = await page.evaluate(() => avatar.shadowRoot.querySelector(".webcam [role=status]").textContent);
seen.readings = await page.evaluate(() => readings.filter((r) => "jawOpen" in r));
await page.getByRole("button", { name: "Stop the camera" }).click();
seen.stopped = await page.evaluate(() => Object.keys(readings.at(-1)).length === 0);
seen.outside = requests.filter((url) => !url.startsWith(server.origin) && !/^(blob|data):/.test(url));
seen.problems = problems.filter((problem) => !/INFO:|XNNPACK/.test(problem)); // the tracker's own notes
writeFileSync(join(folder, "seen.json"), JSON.stringify(seen));
await close();
server.close();
