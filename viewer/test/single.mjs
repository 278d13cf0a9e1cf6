// Opens a self-contained page from disk: `node single.mjs PAGE FOLDER`; what was seen goes to FOLDER/seen.json, the resting avatar with all its
// Gaussians to FOLDER/rest.png.
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { open } from "./browser.mjs";

const [file, folder] = process.argv.slice(2);
const address = pathToFileURL(resolve(file)).href;
const { page, requests, problems, close } = await open({ viewport: { width: 900, height: 600 } });
await page.goto(address);
await page.waitForFunction(() => document.querySelector("ff-avatar")?.info, undefined, { timeout: 60_000 });
await page.waitForTimeout(1500);
await page.screenshot({ path: join(folder, "single.png") });
const seen = await page.evaluate(async () => {
  const avatar = document.querySelector("ff-avatar");
  const inside = avatar.shadowRoot;
  const playing = inside.querySelector(".clip button").title === "Pause";
  avatar.removeAttribute("idle");
  avatar.setAttribute("look", "none");
  avatar.neutral();
  const bytes = async () => [...new Uint8Array(await (await avatar.screenshot()).arrayBuffer())].join();
  const before = await bytes();
  const bitmap = await createImageBitmap(await avatar.screenshot());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const colors = new Set(new Uint32Array(context.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer)).size;
  const slider = inside.querySelector('[data-name="jawOpen"] input');
  slider.value = "0.8";
  slider.dispatchEvent(new Event("input"));
  const moved = (await bytes()) !== before;
  return { playing, moved, colors, gaussians: avatar.info.gaussianCount, sliders: inside.querySelectorAll(".slider").length };
});
const rest = await page.evaluate(async () => {
  const avatar = document.querySelector("ff-avatar");
  await avatar.setMotion(null);
  avatar.setAttribute("detail", "80k");
  avatar.neutral();
  await new Promise((done) => setTimeout(done, 1500));
  const { worldToCam, ...numbers } = avatar.view.camera();
  const bytes = [...new Uint8Array(await (await avatar.screenshot()).arrayBuffer())];
  return { bytes, camera: { ...numbers, worldToCam: [...worldToCam] } };
});
writeFileSync(join(folder, "rest.png"), Buffer.from(rest.bytes));
seen.camera = rest.camera;
seen.problems = [...problems];
seen.outside = requests.filter((url) => url !== address && !/^(blob|data):/.test(url));
seen.refused = await page.evaluate(() => fetch("https://elsewhere.invalid/").then(() => false, () => true)) &&
  problems.some((problem) => problem.includes("Content Security Policy"));
writeFileSync(join(folder, "seen.json"), JSON.stringify(seen));
await close();
