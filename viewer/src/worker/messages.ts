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

export type ToWorker =
  | { readonly kind: "load"; readonly buffer: ArrayBuffer; readonly level: number }
  | { readonly kind: "level"; readonly level: number }
  | { readonly kind: "pose"; readonly params: HeadParams; readonly forward: readonly [number, number, number] }
  | { readonly kind: "recycle"; readonly posed: Float32Array; readonly order: Uint32Array };

export type FromWorker =
  | { readonly kind: "loaded"; readonly info: AvatarInfo }
  | { readonly kind: "appearance"; readonly level: number; readonly appearance: Appearance }
  | {
      readonly kind: "posed";
      readonly posed: Float32Array; // (n, 8)
      readonly order: Uint32Array; // (n), of exactly this pose
      readonly workMs: number;
    }
  | { readonly kind: "failed"; readonly message: string };
