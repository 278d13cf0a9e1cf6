/** Reads the avatar container (docs/container.md): a safetensors file, checked as `ffavatar.avatar` checks it. */

import { decodeHalf } from "./half.js";

export const CONTAINER_VERSION = 1;

/** A file that is not a usable avatar or motion. The message is one sentence for the person who opened it. */
export class FileError extends Error {
  override readonly name = "FileError";
}

/** What each of K views shows beyond the lasting colours; differences are stored in 254ths of a whole colour. */
export interface ShadesFile {
  readonly views: number; // K
  readonly colors: Int8Array; // (N, K, 3)
  readonly certainty: Uint8Array; // (N, K)
  readonly expression: Float32Array; // (K, E)
  readonly jaw: Float32Array; // (K, 3)
  readonly turn: Float32Array; // (K, 3) axis-angle of the head before the normalised camera
}

/** What an avatar file holds. V base vertices, M of them moved, E expressions, N Gaussians; metres and radians. */
export interface AvatarFile {
  readonly edition: string;
  readonly licence: string;
  readonly about: Readonly<Record<string, string>>;
  readonly expressionNames: readonly string[];
  /** ARKit coefficient -> (5, 3) axis-angle of the joints at 1. */
  readonly arkitPose: Readonly<Record<string, Float64Array>>;
  readonly vertexCount: number;
  readonly expressionCount: number;
  readonly gaussianCount: number;
  readonly neutral: Float32Array; // (V, 3)
  readonly joints: Float32Array; // (5, 3)
  readonly faces: Int32Array; // (F, 3)
  readonly lbsWeights: Float32Array; // (V, 5), as stored: rows sum to about 1
  readonly basisRows: Int32Array; // (M)
  readonly jointExpdirs: Float32Array; // (5, 3, E)
  readonly expdirs: Float32Array; // (M, 3, E)
  readonly posedirs: Float32Array; // (M, 3, 36)
  readonly parents: Uint16Array; // (N, 3)
  readonly barycentric: Float32Array; // (N, 3)
  readonly offsets: Float32Array; // (N, 3)
  readonly logScales: Float32Array; // (N, 3)
  readonly quats: Int8Array; // (N, 4) wxyz, of any length
  readonly opacities: Uint8Array; // (N)
  readonly colors: Uint8Array; // (N, 3)
  readonly shades?: ShadesFile | undefined;
}

type Kind = "F32" | "F16" | "I32" | "U16" | "I8" | "U8";
const BYTES: Record<Kind, number> = { F32: 4, F16: 2, I32: 4, U16: 2, I8: 1, U8: 1 };

/** A letter stands for a length that all tensors with that letter share. */
const SCHEMA: Record<string, readonly [Kind, ...(string | number)[]]> = {
  neutral: ["F32", "V", 3],
  joints: ["F32", 5, 3],
  faces: ["I32", "F", 3],
  lbs_weights: ["F16", "V", 5],
  basis_rows: ["I32", "M"],
  joint_expdirs: ["F32", 5, 3, "E"],
  expdirs: ["F16", "M", 3, "E"],
  posedirs: ["F16", "M", 3, 36],
  identity: ["F32", "I"],
  parents: ["U16", "N", 3],
  barycentric: ["F16", "N", 3],
  offsets: ["F16", "N", 3],
  log_scales: ["F16", "N", 3],
  quats: ["I8", "N", 4],
  opacities: ["U8", "N"],
  colors: ["U8", "N", 3],
};

/** All of them or none. */
const SHADES: typeof SCHEMA = {
  shade_colors: ["I8", "N", "K", 3],
  shade_certainty: ["U8", "N", "K"],
  shade_expression: ["F32", "K", "E"],
  shade_jaw: ["F32", "K", 3],
  shade_turn: ["F32", "K", 3],
};

const damaged = (reason: string): FileError => new FileError(`This avatar file is damaged (${reason}); make it anew.`);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function readHeader(buffer: ArrayBuffer): { header: Record<string, unknown>; start: number } {
  const foreign = new FileError("This is not an avatar file; give a .safetensors file made by FFAvatar.");
  if (buffer.byteLength < 8) throw foreign;
  const view = new DataView(buffer);
  const length = view.getUint32(0, true);
  if (view.getUint32(4, true) !== 0 || length < 2 || length > buffer.byteLength - 8) throw foreign;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length));
    const header: unknown = JSON.parse(text);
    if (isObject(header)) return { header, start: 8 + length };
  } catch {
    // falls through: neither text nor JSON
  }
  throw foreign;
}

function tensorBytes(entry: unknown, name: string, buffer: ArrayBuffer, start: number, sizes: Map<string, number>) {
  const [kind, ...axes] = SCHEMA[name] ?? SHADES[name];
  if (!isObject(entry)) throw damaged(`${name} is missing`);
  const { dtype, shape, data_offsets: range } = entry;
  if (dtype !== kind) throw damaged(`${name} is ${String(dtype)}, not ${kind}`);
  if (!Array.isArray(shape) || shape.length !== axes.length || !shape.every((n) => Number.isSafeInteger(n) && n >= 0))
    throw damaged(`${name} has a wrong shape`);
  axes.forEach((axis, k) => {
    if (typeof axis === "string" && !sizes.has(axis)) sizes.set(axis, shape[k]);
    if (shape[k] !== (typeof axis === "string" ? sizes.get(axis) : axis)) throw damaged(`${name} has a wrong shape`);
  });
  const count = shape.reduce((a: number, b: number) => a * b, 1);
  if (!Array.isArray(range) || range.length !== 2 || !range.every((n) => Number.isSafeInteger(n) && n >= 0))
    throw damaged(`${name} has no place in the file`);
  const [from, to] = range as [number, number];
  if (to - from !== count * BYTES[kind] || start + to > buffer.byteLength) throw damaged("it is cut short");
  return buffer.slice(start + from, start + to); // a copy: the file's header need not keep numbers aligned
}

function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * 0; // NaN as soon as one is not finite
  return sum === 0;
}

function parseText(metadata: Record<string, unknown>, key: string): unknown {
  const text = metadata[key];
  if (typeof text !== "string") throw damaged("its header is incomplete");
  try {
    return JSON.parse(text);
  } catch {
    throw damaged("its header is incomplete");
  }
}

function readPoses(value: unknown): Record<string, Float64Array> {
  if (!isObject(value)) throw damaged("its header is incomplete");
  const poses: Record<string, Float64Array> = {};
  for (const [name, rows] of Object.entries(value)) {
    const flat: unknown[] = Array.isArray(rows) ? rows.flat() : [];
    if (flat.length !== 15 || !flat.every((x) => Number.isFinite(x))) throw damaged("its header is incomplete");
    poses[name] = Float64Array.from(flat as number[]);
  }
  return poses;
}

/** Reads an avatar file. Throws FileError for anything that is not a whole, usable one. */
export function readAvatar(buffer: ArrayBuffer): AvatarFile {
  const { header, start } = readHeader(buffer);
  const metadata = header["__metadata__"];
  if (!isObject(metadata) || metadata["format"] !== "ffavatar")
    throw new FileError("This is a safetensors file but not an avatar; give a file made by FFAvatar.");
  const version = metadata["version"];
  if (typeof version !== "string" || !/^\d+$/.test(version) || Number(version) > CONTAINER_VERSION)
    throw new FileError(
      `This avatar has container version ${String(version)}, this viewer reads up to ${CONTAINER_VERSION}; update it.`,
    );
  if (Number(version) < CONTAINER_VERSION)
    throw new FileError(`This avatar has the old container version ${version}; load and save it with FFAvatar once.`);

  const sizes = new Map<string, number>();
  const shaded = Object.keys(SHADES).some((name) => name in header);
  const raw = Object.fromEntries(
    Object.keys(shaded ? { ...SCHEMA, ...SHADES } : SCHEMA).map((name) => [name, tensorBytes(header[name], name, buffer, start, sizes)]),
  );
  const size = (axis: string): number => sizes.get(axis) ?? 0;
  const real = (name: string): Float32Array => {
    const half = SCHEMA[name]?.[0] === "F16";
    const values = half ? decodeHalf(new Uint16Array(raw[name])) : new Float32Array(raw[name]);
    if (!allFinite(values)) throw damaged(`${name} holds numbers that are not finite`);
    return values;
  };
  const index = <T extends Int32Array | Uint16Array>(name: string, values: T): T => {
    const limit = size("V");
    for (let i = 0; i < values.length; i++)
      if (values[i] < 0 || values[i] >= limit) throw damaged(`${name} points outside the head`);
    return values;
  };

  const names = parseText(metadata, "expression_names");
  if (!Array.isArray(names) || names.length !== size("E") || !names.every((name) => typeof name === "string"))
    throw damaged("its expression names do not fit");
  const about = parseText(metadata, "about");
  const { edition, licence } = metadata;
  if (!isObject(about) || typeof edition !== "string" || typeof licence !== "string")
    throw damaged("its header is incomplete");
  real("identity"); // part of the format, not needed to draw
  return {
    edition,
    licence,
    about: Object.fromEntries(Object.entries(about).map(([key, value]) => [key, String(value)])),
    expressionNames: names as string[],
    arkitPose: readPoses(parseText(metadata, "arkit_pose")),
    vertexCount: size("V"),
    expressionCount: size("E"),
    gaussianCount: size("N"),
    neutral: real("neutral"),
    joints: real("joints"),
    faces: index("faces", new Int32Array(raw["faces"])),
    lbsWeights: real("lbs_weights"),
    basisRows: index("basis_rows", new Int32Array(raw["basis_rows"])),
    jointExpdirs: real("joint_expdirs"),
    expdirs: real("expdirs"),
    posedirs: real("posedirs"),
    parents: index("parents", new Uint16Array(raw["parents"])),
    barycentric: real("barycentric"),
    offsets: real("offsets"),
    logScales: real("log_scales"),
    quats: new Int8Array(raw["quats"]),
    opacities: new Uint8Array(raw["opacities"]),
    colors: new Uint8Array(raw["colors"]),
    shades: !shaded ? undefined : {
      views: size("K"),
      colors: new Int8Array(raw["shade_colors"]),
      certainty: new Uint8Array(raw["shade_certainty"]),
      expression: real("shade_expression"),
      jaw: real("shade_jaw"),
      turn: real("shade_turn"),
    },
  };
}
