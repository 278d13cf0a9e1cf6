// Draws avatars in Chromium: `node pictures.mjs DIST FOLDER`. FOLDER/spec.json is {avatars, params, cameras, precisions};
// the first precision draws every pose, the others the second one only. Writes FOLDER/PRECISION-AVATAR.f32, (poses, cameras, H, W, 4) float32 over a white background as the canvas shows it,
// and FOLDER/PRECISION-AVATAR.linear.f32, the picture before it is rounded to the canvas's bytes.
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { open, serve } from "./browser.mjs";

const [dist, folder] = process.argv.slice(2);
const spec = JSON.parse(readFileSync(join(folder, "spec.json"), "utf8"));
const server = await serve({ "/dist/": dist, "/data/": folder });
const { page, problems, close } = await open();
await page.goto(server.origin);

const used = await page.evaluate(async ({ precisions }) => {
  window.core = await import("/dist/core.js");
  const { Renderer } = await import("/dist/ff-avatar.js");
  window.renderers = Object.fromEntries(precisions.map((p) => [p, new Renderer(document.createElement("canvas"), p)]));
  window.text = (values) => {
    const bytes = new Uint8Array(values.buffer);
    let out = "";
    for (let i = 0; i < bytes.length; i += 32768) out += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(out);
  };
  window.drawAll = (name, camera) => {
    const renderer = renderers[name];
    Object.assign(renderer.canvas, { width: camera.width, height: camera.height });
    renderer.draw(camera, [1, 1, 1, 1]);
    const { gl } = renderer;
    const linear = renderer.readPicture(camera.width, camera.height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const rows = new Uint8Array(4 * camera.width * camera.height);
    gl.readPixels(0, 0, camera.width, camera.height, gl.RGBA, gl.UNSIGNED_BYTE, rows);
    const shown = new Float32Array(rows.length);
    for (let y = 0; y < camera.height; y++)
      for (let k = 0; k < 4 * camera.width; k++)
        shown[4 * camera.width * y + k] = rows[4 * camera.width * (camera.height - 1 - y) + k] / 255;
    return [text(shown), text(linear)];
  };
  return Object.fromEntries(Object.entries(renderers).map(([name, renderer]) => [name, renderer.precision]));
}, spec);
writeFileSync(join(folder, "used.json"), JSON.stringify(used));

for (const avatar of spec.avatars) {
  await page.evaluate(async (avatar) => {
    const file = core.readAvatar(await (await fetch(`/data/${avatar}`)).arrayBuffer());
    window.rig = new core.Rig(file);
    window.binding = core.bindingOf(file);
    window.posed = new Float32Array(8 * binding.count);
    window.order = new Uint32Array(binding.count);
    window.sorter = new core.DepthSorter();
    const appearance = core.appearanceOf(file);
    window.shading = file.shades && new core.Shading(file, rig, appearance.colors);
    window.colors = shading && new Uint8Array(4 * binding.count);
    for (const renderer of Object.values(renderers)) renderer.setAppearance(appearance);
  }, avatar);
  for (const [k, params] of spec.params.entries())
    for (const camera of spec.cameras) {
      const pictures = await page.evaluate(
        ({ params, camera, names }) => {
          const real = (values) => Float64Array.from(values.flat());
          const pose = {
            joints: real(params.joints), translation: real(params.translation), expression: real(params.expression),
          };
          camera.worldToCam = real(camera.worldToCam);
          shading?.mix(binding, pose, camera.worldToCam, colors);
          rig.poseVertices(pose);
          rig.poseGaussians(binding, posed);
          sorter.sort(posed, 8, core.forwardOf(camera), order);
          const result = {};
          for (const name of names) {
            renderers[name].setPose(posed, order, colors);
            result[name] = drawAll(name, camera);
          }
          return result;
        },
        { params, camera, names: k === 1 ? spec.precisions : spec.precisions.slice(0, 1) },
      );
      for (const [name, [shown, linear]] of Object.entries(pictures)) {
        appendFileSync(join(folder, `${name}-${avatar}.f32`), Buffer.from(shown, "base64"));
        appendFileSync(join(folder, `${name}-${avatar}.linear.f32`), Buffer.from(linear, "base64"));
      }
    }
}
await close();
server.close();
if (problems.length) {
  console.error(problems.join("\n"));
  process.exit(1);
}
