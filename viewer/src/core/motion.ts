/** Motion files (`ffavatar.drive.motion`, .json) and the pose at a time. */

import { FileError } from "./container.js";
import { JOINTS, neutralParams, type HeadParams } from "./params.js";
import { slerpAxisAngle, type Vec3 } from "./rotation.js";

const MOST_FRAMES = 1_000_000;
const LARGEST = 1e4;
/** Names such as exp_012 mean something only within one head edition. */
const POSITIONAL = /^[A-Za-z]*[ _-]?\d+$/;

/** A performance for one avatar: its expressions are already the avatar's own. */
export interface Motion {
  readonly fps: number;
  readonly frames: number;
  readonly seconds: number;
  readonly source: string;
  /** (T, 15), (T, 3), (T, E). */
  readonly joints: Float64Array;
  readonly translation: Float64Array;
  readonly expression: Float64Array;
}

export interface ExpressionNames {
  readonly edition: string;
  readonly expressionNames: readonly string[];
}

const refuse = (what: string): FileError =>
  new FileError(`This is not a usable motion file: ${what}; make one with \`ffavatar estimate\`.`);

function table(value: unknown, name: string, width: number, frames: number | undefined): Float64Array {
  if (!Array.isArray(value) || value.length < 1 || value.length > MOST_FRAMES) throw refuse(`${name} has no frames`);
  if (frames !== undefined && value.length !== frames) throw refuse(`${name} has another number of frames`);
  const out = new Float64Array(value.length * width);
  value.forEach((row: unknown, t) => {
    if (!Array.isArray(row) || row.length !== width) throw refuse(`${name} is not ${width} numbers per frame`);
    for (let k = 0; k < width; k++) {
      const x: unknown = row[k];
      if (typeof x !== "number" || !(Math.abs(x) <= LARGEST)) throw refuse(`${name} holds values beyond any use`);
      out[t * width + k] = x;
    }
  });
  return out;
}

/** Reads a parsed motion file for an avatar: expressions matched by name, unknown ones left out, others zero. */
export function readMotion(data: unknown, head: ExpressionNames): Motion {
  if (typeof data !== "object" || data === null) throw refuse("it is no JSON object");
  const file = data as Record<string, unknown>;
  if (file["format"] !== "ffavatar-motion") throw refuse("its format is not 'ffavatar-motion'");
  if (file["version"] !== 1) throw refuse(`its version is ${String(file["version"]).slice(0, 20)}, this viewer reads 1`);
  const { fps, source, head_edition: edition, expression_names: names } = file;
  if (typeof fps !== "number" || !(fps >= 0.1 && fps <= 1000)) throw refuse("fps is not a number from 0.1 to 1000");
  if (!Array.isArray(names) || names.length > 4096 || !names.every((n) => typeof n === "string"))
    throw refuse("expression_names is not a list of names");
  if (new Set(names).size !== names.length) throw refuse("expression_names has a name twice");
  if (typeof edition !== "string" || typeof source !== "string") throw refuse("head_edition or source is not text");

  const translation = table(file["translation"], "translation", 3, undefined);
  const frames = translation.length / 3;
  const joints = new Float64Array(frames * 15);
  JOINTS.forEach((name, j) => {
    const rotation = table(file[name], name, 3, frames);
    for (let t = 0; t < frames; t++) joints.set(rotation.subarray(3 * t, 3 * t + 3), 15 * t + 3 * j);
  });
  const given = table(file["expression"], "expression", names.length, frames);
  const own = head.expressionNames;
  const expression = new Float64Array(frames * own.length);
  own.forEach((name, e) => {
    const column = names.indexOf(name);
    if (column < 0 || (edition !== head.edition && POSITIONAL.test(name))) return;
    for (let t = 0; t < frames; t++) expression[t * own.length + e] = given[t * names.length + column];
  });
  return { fps, frames, seconds: frames / fps, source, joints, translation, expression };
}

/** The pose at `time` in seconds, between frames by slerp of rotations and linear for the rest; held at both ends. */
export function poseAt(motion: Motion, time: number): HeadParams {
  const at = Math.max(0, Math.min(motion.frames - 1, time * motion.fps));
  const before = Math.floor(at);
  const after = Math.min(before + 1, motion.frames - 1);
  const part = at - before;
  const params = neutralParams(motion.expression.length / motion.frames);
  const mix = (from: Float64Array, to: Float64Array): void => {
    const width = to.length;
    for (let k = 0; k < width; k++)
      to[k] = from[before * width + k] + part * (from[after * width + k] - from[before * width + k]);
  };
  mix(motion.translation, params.translation);
  mix(motion.expression, params.expression);
  for (let j = 0; j < 5; j++) {
    const rotation = (t: number): Vec3 => {
      const at = 15 * t + 3 * j;
      return [motion.joints[at], motion.joints[at + 1], motion.joints[at + 2]];
    };
    params.joints.set(part === 0 ? rotation(before) : slerpAxisAngle(rotation(before), rotation(after), part), 3 * j);
  }
  return params;
}
