/** What the page and its worker say to each other. */

import type { Appearance } from "../core/detail.js";
import type { AvatarFile } from "../core/container.js";
import type { HeadParams } from "../core/params.js";

/** An avatar without its Gaussians: what the page needs to steer it. */
export type AvatarInfo = Pick<
  AvatarFile,
  "edition" | "licence" | "about" | "expressionNames" | "arkitPose" | "gaussianCount" | "joints" | "jointExpdirs"
> & {
  /** Middle of the neutral head, metres: what a camera should turn about. */
  readonly middle: readonly [number, number, number];
  /** About how many Gaussians each level of detail has; equal numbers are the same level. */
  readonly counts: readonly number[];
};

/** (4, 4) row-major, OpenCV's axes: where the avatar is seen from. */
export type Matrix4x4 = ArrayLike<number>;

/** The Gaussians of one frame, n of them. */
export interface Posed {
  readonly posed: Float32Array; // (n, 8)
  readonly order: Uint32Array; // (n), of exactly this pose
  /** (n, 4) bytes; undefined where the colours last, as the level's appearance has them. */
  readonly colors?: Uint8Array | undefined;
}

/** What goes over to the other side with a frame. */
export const buffersOf = ({ posed, order, colors }: Posed): ArrayBuffer[] =>
  [posed, order, ...(colors ? [colors] : [])].map((array) => array.buffer as ArrayBuffer);

export type ToWorker =
  | { readonly kind: "load"; readonly buffer: ArrayBuffer; readonly level: number }
  | { readonly kind: "level"; readonly level: number }
  | { readonly kind: "pose"; readonly params: HeadParams; readonly worldToCam: Matrix4x4 }
  | ({ readonly kind: "recycle" } & Posed);

export type FromWorker =
  | { readonly kind: "loaded"; readonly info: AvatarInfo }
  | { readonly kind: "appearance"; readonly level: number; readonly appearance: Appearance }
  | ({ readonly kind: "posed"; readonly workMs: number } & Posed)
  | { readonly kind: "failed"; readonly message: string };
