// The page against a running `ffavatar serve`, with the real model: `node serve-real.mjs ORIGIN MATERIAL FOLDER`. What was seen is written to
// FOLDER/real.json, screenshots beside it.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { open } from "./browser.mjs";

const [origin, material, folder] = process.argv.slice(2);
const LONG = { timeout: 240_000 };
const seen = {};
const { page, requests, problems, close } = await open({ viewport: { width: 1440, height: 900 } });
await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
await page.goto(origin);
await page.locator(".home").waitFor();
await page.getByLabel("Photo files").setInputFiles(["front.jpg", "left.png", "right.webp", "landscape.jpg", "notes.jpg"].map((name) => join(material, "photos", name)));
await page.getByRole("button", { name: "I have their consent" }).click();
await page.waitForFunction(() => document.querySelectorAll(".card").length === 5 && !document.querySelector(".card[data-state=busy]") &&
  [...document.querySelectorAll(".card img:not(.whole)")].every((img) => img.complete), undefined, LONG);
seen.cards = await page.evaluate(() => [...document.querySelectorAll(".card")].map((card) => ({
  name: card.querySelector("h3").textContent, state: card.dataset.state, text: card.textContent,
  pictures: [...card.querySelectorAll("img:not(.whole)")].map((img) => img.naturalWidth),
})));
await page.screenshot({ path: join(folder, "real-photos.png"), fullPage: true });
await page.getByRole("checkbox", { name: /right\.webp/ }).uncheck(); // of two photos none is held out: the steps asked for are taken
await page.getByLabel("Name").fill("Synthetic person");
await page.getByLabel("Refine it to the photos").check();
await page.getByRole("button", { name: "Make avatar" }).click();
await page.locator(".stages li").first().waitFor(LONG);
await page.screenshot({ path: join(folder, "real-making.png") });
await page.waitForFunction(() => document.querySelector("ff-avatar")?.info, undefined, LONG);
await page.evaluate(() => {
  window.avatar = document.querySelector("ff-avatar");
  avatar.removeAttribute("idle");
  avatar.setAttribute("look", "none");
  avatar.setAttribute("detail", "5k");
  window.updates = 0;
  avatar.addEventListener("ff-update", () => updates++);
});
const picture = () =>
  page.evaluate(async () => [...new Uint8Array(await (await avatar.screenshot()).arrayBuffer())]).then((bytes) => createHash("sha256").update(Buffer.from(bytes)).digest("hex"));
const first = await picture();
seen.openedWhileRefining = (await page.locator(".progress").count()) === 1;
await page.screenshot({ path: join(folder, "real-refining.png") });
await page.waitForFunction(() => !document.querySelector(".progress"), undefined, LONG);
await page.waitForFunction(() => updates > 0, undefined, LONG);
seen.updates = await page.evaluate(() => updates);
seen.meta = await page.locator(".studio .head .hint").textContent();
await page.screenshot({ path: join(folder, "real-refined.png") });

await page.getByLabel("Film file").setInputFiles([join(material, "film.mp4")]);
await page.getByText("The avatar plays the film's movement.").first().waitFor(LONG);
const moving = await page.evaluate(() => new Promise((done) => avatar.addEventListener("ff-time", ({ detail }) => detail.playing && detail.time > 0.5 && done(detail))));
seen.clip = moving.duration;
await page.evaluate(() => avatar.pause());
seen.moved = (await picture()) !== first;
await page.screenshot({ path: join(folder, "real-driven.png") });
const saved = async (act) => {
  const coming = page.waitForEvent("download", LONG);
  await act();
  const download = await coming;
  const data = readFileSync(await download.path());
  return { name: download.suggestedFilename(), start: [...data.subarray(0, 12)], size: data.length };
};
seen.mp4 = await saved(() => page.getByRole("link", { name: "Film of the avatar (mp4)" }).click());
seen.container = await saved(() => page.getByRole("link", { name: /^Avatar file/ }).click());
for (const [kind, name] of [["ply", /\.ply/], ["glb", /^Rigged mesh/], ["html", /^Web page/]]) seen[kind] = await saved(() => page.getByRole("button", { name }).click());
await page.getByRole("link", { name: "Your avatars" }).click();
await page.waitForFunction(() => document.querySelector(".avatar img")?.naturalWidth > 0);
await page.screenshot({ path: join(folder, "real-avatars.png") });
await page.getByRole("button", { name: "Delete Synthetic person" }).click();
await page.getByRole("button", { name: "Delete", exact: true }).click();
await page.getByText("No avatars yet.").waitFor(LONG);
seen.outside = requests.filter((url) => !url.startsWith(origin) && !/^(blob|data):/.test(url));
seen.problems = problems;
writeFileSync(join(folder, "real.json"), JSON.stringify(seen, null, 1));
await close();
