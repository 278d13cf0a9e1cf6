// The three.js object in Chromium: `node three.mjs DIST AVATAR FOLDER`; writes FOLDER/three.u8, (H, W, 4) bytes of the resting
// avatar on white as the normalised camera sees it, and FOLDER/three-driven.u8 after setARKit.
import { copyFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { open, serve } from "./browser.mjs";

const [dist, avatar, folder] = process.argv.slice(2);
const three = join(dirname(fileURLToPath(import.meta.url)), "../node_modules/three/build");
copyFileSync(avatar, join(folder, "three-avatar.safetensors"));
const server = await serve({ "/dist/": dist, "/data/": folder, "/three/": three });
const { page, problems, close } = await open();
await page.goto(server.origin);
const pictures = await page.evaluate(async () => {
  const THREE = await import("three");
  const { FFAvatarObject } = await import("/dist/three.js");
  const side = 320;
  const renderer = new THREE.WebGLRenderer({ antialias: false });
  renderer.setSize(side, side);
  renderer.setClearColor(0xffffff, 1);
  renderer.outputColorSpace = THREE.LinearSRGBColorSpace;
  const camera = new THREE.PerspectiveCamera((2 * Math.atan(1 / 6) * 180) / Math.PI, 1, 0.01, 10);
  const scene = new THREE.Scene();
  const object = await FFAvatarObject.load(await (await fetch("/data/three-avatar.safetensors")).arrayBuffer(), { centred: false });
  scene.add(object);
  const bytes = new Uint8Array(4 * side * side);
  const shot = async () => {
    renderer.render(scene, camera); // asks the worker for this view
    await new Promise((done) => setTimeout(done, 2000));
    renderer.render(scene, camera);
    const gl = renderer.getContext();
    gl.readPixels(0, 0, side, side, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    let text = "";
    for (let y = side - 1; y >= 0; y--) text += String.fromCharCode(...bytes.subarray(4 * side * y, 4 * side * (y + 1)));
    return btoa(text);
  };
  const resting = await shot();
  object.setARKit({ jawOpen: 1, headYaw: 0.4 });
  const driven = await shot();
  object.dispose();
  return [resting, driven];
});
writeFileSync(join(folder, "three.u8"), Buffer.from(pictures[0], "base64"));
writeFileSync(join(folder, "three-driven.u8"), Buffer.from(pictures[1], "base64"));
await close();
server.close();
if (problems.length) {
  console.error(problems.join("\n"));
  process.exit(1);
}
