// Poses avatars in Node: `node pose.mjs DIST SPEC`. SPEC is JSON, a list of {avatar, params, out}; writes (n, 8) float32
// rows and, beside them as .order, the depth order of each frame, farthest first, seen along -z, and as .colors, for an
// avatar with shades, each frame's (n, 4) bytes.
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, spec] = process.argv.slice(2);
const core = await import(pathToFileURL(resolve(join(dist, "core.js"))).href);

for (const { avatar, params, out } of JSON.parse(readFileSync(spec, "utf8"))) {
  const bytes = readFileSync(avatar);
  const file = core.readAvatar(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const rig = new core.Rig(file);
  const binding = core.bindingOf(file);
  const sorter = new core.DepthSorter();
  const posed = new Float32Array(8 * binding.count);
  const order = new Uint32Array(binding.count);
  const frames = [];
  const orders = [];
  const colors = [];
  const normalised = core.normalisedCamera(1, 1).worldToCam;
  const shading = file.shades && new core.Shading(file, rig, core.appearanceOf(file).colors);
  for (const { joints, translation, expression } of params) {
    const pose = {
      joints: Float64Array.from(joints.flat()),
      translation: Float64Array.from(translation),
      expression: Float64Array.from(expression),
    };
    if (shading) {
      const mixed = new Uint8Array(4 * binding.count);
      shading.mix(binding, pose, normalised, mixed);
      colors.push(Buffer.from(mixed.buffer));
    }
    rig.poseVertices(pose);
    rig.poseGaussians(binding, posed);
    sorter.sort(posed, 8, [0, 0, -1], order);
    frames.push(Buffer.from(posed.slice().buffer));
    orders.push(Buffer.from(order.slice().buffer));
  }
  writeFileSync(out, Buffer.concat(frames));
  writeFileSync(`${out}.order`, Buffer.concat(orders));
  if (shading) writeFileSync(`${out}.colors`, Buffer.concat(colors));
}
