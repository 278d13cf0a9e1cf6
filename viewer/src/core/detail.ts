/** Levels of detail: fewer, wider Gaussians. */

import type { AvatarFile } from "./container.js";

export const DETAIL_LEVELS = [5_000, 20_000, 80_000] as const;

/** What a renderer needs of each Gaussian that no pose changes. */
export interface Appearance {
  readonly count: number;
  /** (n, 4): standard deviations in metres, 0. */
  readonly scales: Float32Array;
  /** (n, 4): sRGB and opacity, / 255. */
  readonly colors: Uint8Array;
}

/** Bits of a 10-bit number spread to every third place. */
function spread(x: number): number {
  x = (x | (x << 16)) & 0x030000ff;
  x = (x | (x << 8)) & 0x0300f00f;
  x = (x | (x << 4)) & 0x030c30c3;
  return (x | (x << 2)) & 0x09249249;
}

/** Gaussians ordered along a space-filling curve, so that neighbours in the list are neighbours on the head. */
function curveOrder(file: AvatarFile): Uint32Array {
  const n = file.gaussianCount;
  const points = new Float64Array(3 * n);
  const low = [Infinity, Infinity, Infinity];
  let side = 0;
  for (let i = 0; i < 3 * n; i++) {
    const t = i - (i % 3);
    const c = i % 3;
    let value = file.offsets[i];
    for (let k = 0; k < 3; k++) value += file.barycentric[t + k] * file.neutral[3 * file.parents[t + k] + c];
    points[i] = value;
    low[c] = Math.min(low[c], value);
  }
  for (let i = 0; i < 3 * n; i++) side = Math.max(side, points[i] - low[i % 3]);
  const scale = 1023 / (side || 1);
  const keys = new Float64Array(n); // Morton code (30 bits) and index in one number, so that the sort is a plain one
  for (let i = 0; i < n; i++) {
    const code = [0, 1, 2].reduce((sum, c) => sum | (spread((points[3 * i + c] - low[c]) * scale) << c), 0);
    keys[i] = code * n + i;
  }
  keys.sort();
  return Uint32Array.from(keys, (key) => key % n);
}

/**
 * About `wanted` Gaussians, spread evenly over the head: of each run along the curve, the most opaque and largest.
 * Returns undefined where the avatar has no more than a tenth above that.
 */
export function chooseDetail(file: AvatarFile, wanted: number): Uint32Array | undefined {
  const n = file.gaussianCount;
  if (n <= 1.2 * wanted) return undefined;
  const order = curveOrder(file);
  const chosen = new Uint32Array(wanted);
  for (let r = 0; r < wanted; r++) {
    const end = Math.floor(((r + 1) * n) / wanted);
    let best = -Infinity;
    for (let k = Math.floor((r * n) / wanted); k < end; k++) {
      const i = order[k];
      const scales = file.logScales.subarray(3 * i, 3 * i + 3);
      // the visible area: opacity times the two longer axes
      const area = Math.log(file.opacities[i] + 1) + scales[0] + scales[1] + scales[2] - Math.min(...scales);
      if (area > best) {
        best = area;
        chosen[r] = i;
      }
    }
  }
  return chosen.sort();
}

/** Scales and colours of the Gaussians `index`, widened so that fewer cover the same surface; or of all. */
export function appearanceOf(file: AvatarFile, index?: Uint32Array): Appearance {
  const count = index ? index.length : file.gaussianCount;
  const scales = new Float32Array(4 * count);
  const colors = new Uint8Array(4 * count);
  const widen = Math.sqrt(file.gaussianCount / Math.max(count, 1));
  for (let i = 0; i < count; i++) {
    const g = index ? index[i] : i;
    const axes = [0, 1, 2].map((k) => Math.exp(file.logScales[3 * g + k]));
    const thin = axes.indexOf(Math.min(...axes)); // across the surface: not widened
    for (let k = 0; k < 3; k++) {
      scales[4 * i + k] = axes[k] * (k === thin ? 1 : widen);
      colors[4 * i + k] = file.colors[3 * g + k];
    }
    colors[4 * i + 3] = file.opacities[g];
  }
  return { count, scales, colors };
}

/**
 * Chooses the level by the time frames take: down when they are slow, and up again once, if they turn out quick.
 *
 * Feed it the milliseconds between frames while something moves.
 */
export class DetailGovernor {
  private times: number[] = [];
  private ceiling: number;

  constructor(
    public level: number,
    private readonly highest = DETAIL_LEVELS.length - 1,
    private readonly slowMs = 40,
    private readonly quickMs = 20,
    private readonly frames = 12,
  ) {
    this.ceiling = highest;
  }

  /** Returns the new level when it changes. */
  feed(frameMs: number): number | undefined {
    if (frameMs > 1000) return undefined; // a hidden tab or a paused page
    this.times.push(frameMs);
    if (this.times.length < this.frames) return undefined;
    const median = this.times.sort((a, b) => a - b)[this.frames >> 1];
    this.times = [];
    if (median > this.slowMs && this.level > 0) {
      this.ceiling = this.level - 1; // what was too slow is not tried again
      return --this.level;
    }
    if (median < this.quickMs && this.level < Math.min(this.ceiling, this.highest)) return ++this.level;
    return undefined;
  }
}
