// The core's steering in Node: `node steer.mjs DIST AVATAR MOTION`; prints JSON that the Python tests compare.
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [dist, avatar, clip] = process.argv.slice(2);
const core = await import(pathToFileURL(resolve(join(dist, "core.js"))).href);
const bytes = readFileSync(avatar);
const file = core.readAvatar(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const motion = core.readMotion(JSON.parse(readFileSync(clip, "utf8")), file);
const plain = (params) => Object.fromEntries(Object.entries(params).map(([name, values]) => [name, [...values]]));
const neutral = () => core.neutralParams(file.expressionNames.length);
const out = {};

out.between = Array.from({ length: 40 }, (_, k) => plain(core.poseAt(motion, k / 17)));

out.refused = [null, [], {}, { format: "ffavatar-motion", version: 2 }].map((data) => {
  try {
    core.readMotion(data, file);
    return "read";
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
});

const skeleton = new core.Skeleton(file.joints, file.jointExpdirs);
out.gaze = [[0.1, 0.05, -0.6], [-0.15, -0.05, -0.5], [0.1, 0.1, 0], [0.9, 0, -0.9]].map((point, k) => {
  const params = neutral();
  params.joints.set([0.1 * k, -0.1, 0.05, 0.1, 0.15 * k, 0.02]);
  core.addGaze(skeleton, params, point);
  return { point, params: plain(params), eyes: [3, 4].map((joint) => skeleton.position(joint, params)) };
});

const driven = neutral();
out.unknown = core.addControls(file, { jawOpen: 0.5, eyeLookUpLeft: 1, mouthSmileLeft: 0.25, headYaw: 0.2, nothing: 1, browInnerUp: NaN }, driven);
out.driven = plain(driven);

out.blinks = Array.from({ length: 2000 }, (_, k) => core.blinkAt(k / 100));
out.randoms = Array.from({ length: 50 }, () => core.randomValues(core.controlsOf(file)));
out.limits = Object.fromEntries(core.controlsOf(file).map(({ name, min, max }) => [name, [min, max]]));

const feed = (start, times) => {
  const governor = new core.DetailGovernor(start);
  times.forEach((ms) => governor.feed(ms));
  return governor.level;
};
const many = (ms, count = 40) => Array(count).fill(ms);
out.levels = {
  quick: feed(2, many(16)), slow: feed(2, many(60, 13)), slower: feed(2, many(200)), rises: feed(0, many(16)),
  staysDown: feed(2, [...many(60, 12), ...many(10)]), hidden: feed(2, many(5000)),
};

out.whole = [
  [163_000, 80_000], [core.MOST_WHOLE, 80_000], [core.MOST_WHOLE + 1, 80_000], [26_000, 20_000], [163_000, 20_000],
].map(([gaussians, wanted]) => core.isWhole(gaussians, wanted));

out.details = core.DETAIL_LEVELS.map((wanted) => {
  const detail = core.chooseDetail(file, wanted);
  if (!detail) return null;
  const { scales, colors } = core.appearanceOf(file, detail);
  return {
    count: detail.index.length,
    members: [...detail.members].sort((a, b) => a - b).every((value, k) => value === k),
    ordered: detail.starts.every((value, k) => k === 0 || value > detail.starts[k - 1]),
    own: detail.index.every((i, r) => detail.members.subarray(detail.starts[r], detail.starts[r + 1]).includes(i)),
    finite: scales.every(Number.isFinite) && colors.length === 4 * detail.index.length,
    index: [...detail.index],
    scales: [...scales],
    colors: [...colors],
  };
});

// a tracker that says at rest: turned by 0.1, brows a little up; then a turn to 0.5 and a blink of the left eye
const reading = (yaw, scores) => ({
  scores: { _neutral: 0, browInnerUp: 0.2, ...scores },
  matrix: [Math.cos(yaw), 0, -Math.sin(yaw), 0, 0, 1, 0, 0, Math.sin(yaw), 0, Math.cos(yaw), 0, 3, 4, -50, 1],
});
out.tracked = [false, true].map((mirror) => {
  const driver = new core.FaceDriver(mirror);
  const during = Array.from({ length: 11 }, () => driver.next(reading(0.1, { eyeBlinkLeft: 0.1 }), 1 / 30));
  const rest = driver.next(reading(0.1, { eyeBlinkLeft: 0.1 }), 1 / 30);
  let last;
  for (let k = 0; k < 60; k++) last = driver.next(reading(0.5, { eyeBlinkLeft: 1, browInnerUp: 0.6 }), 1 / 30);
  return { during: during.every((values) => Object.keys(values).length === 0), rest, last };
});
let seed = 1;
const noise = () => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5;
const filter = new core.OneEuro(1.2, 2);
out.noisy = Array.from({ length: 200 }, () => 0.02 * noise());
out.filtered = out.noisy.map((value) => filter.next(value, 1 / 30));
out.step = Array.from({ length: 10 }, () => filter.next(0.5, 1 / 30));

const orbit = new core.Orbit([0, 0, -1.15]);
const before = orbit.camera(640, 480);
out.resting = { camera: [...before.worldToCam], normalised: [...core.normalisedCamera(640, 480).worldToCam], fx: before.fx };
orbit.turn(0.5, 0.2);
out.turned = [...orbit.camera(640, 480).worldToCam];
console.log(JSON.stringify(out));
