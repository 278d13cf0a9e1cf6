// Speed of deforming and sorting in Node: `node bench.mjs DIST AVATAR MOTION`; prints JSON with medians in milliseconds.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, avatar, clip] = process.argv.slice(2);
const core = await import(pathToFileURL(resolve(join(dist, "core.js"))).href);
const bytes = readFileSync(avatar);
const file = core.readAvatar(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const motion = core.readMotion(JSON.parse(readFileSync(clip, "utf8")), file);
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

const camera = core.normalisedCamera(1, 1).worldToCam;

/** The file with the shades of some of its Gaussians. */
function shadesOf(index) {
  const { views, colors, certainty } = file.shades;
  const some = { colors: new Int8Array(3 * views * index.length), certainty: new Uint8Array(views * index.length) };
  index.forEach((g, i) => {
    some.colors.set(colors.subarray(3 * views * g, 3 * views * (g + 1)), 3 * views * i);
    some.certainty.set(certainty.subarray(views * g, views * (g + 1)), views * i);
  });
  return { ...file, shades: { ...file.shades, ...some } };
}

/** A frame of `count` Gaussians spread over the avatar's; some come twice where it has fewer. */
function measure(count) {
  const rig = new core.Rig(file);
  const index = Uint32Array.from({ length: count }, (_, i) => Math.floor((i * file.gaussianCount) / count));
  const binding = core.bindingOf(file, index);
  const posed = new Float32Array(8 * count);
  const order = new Uint32Array(count);
  const sorter = new core.DepthSorter();
  const colors = new Uint8Array(4 * count);
  const shading = file.shades && new core.Shading(shadesOf(index), rig, new Uint8Array(4 * count));
  const times = { shades: [], vertices: [], gaussians: [], sort: [], frame: [] };
  for (let k = 0; k < 240; k++) {
    const params = core.poseAt(motion, (k / 30) % motion.seconds);
    const begun = performance.now();
    shading?.mix(binding, params, camera, colors);
    const shaded = performance.now();
    rig.poseVertices(params);
    const vertices = performance.now();
    rig.poseGaussians(binding, posed);
    const gaussians = performance.now();
    sorter.sort(posed, 8, [0, 0, -1], order);
    const done = performance.now();
    if (k < 40) continue; // warm-up
    times.shades.push(shaded - begun);
    times.vertices.push(vertices - shaded);
    times.gaussians.push(gaussians - vertices);
    times.sort.push(done - gaussians);
    times.frame.push(done - begun);
  }
  const result = Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]));
  return { ...result, least: times.frame[0], count };
}

// 80,000 means the same for every avatar; then the whole avatar, and the most that is drawn whole
const counts = [80_000, file.gaussianCount, core.MOST_WHOLE];
console.log(JSON.stringify({ frames: counts.map(measure), node: process.version }));
