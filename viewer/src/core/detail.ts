/** Levels of detail: fewer, wider Gaussians. */

import type { AvatarFile } from "./container.js";

export const DETAIL_LEVELS = [5_000, 20_000, 80_000] as const;

/**
 * The finest level draws avatars of up to so many Gaussians whole: more than reconstruction makes (94K on the head, up to
 * 48K from splitting, 20K or so of grown hair), and few enough to be posed and sorted at 50 frames a second
 * (benchmarks/viewer.py), well before `DetailGovernor` would call them slow. Other programs' larger ones are thinned.
 */
export const MOST_WHOLE = 200_000;

/** Whether an avatar with so many Gaussians is drawn whole at a level: it has hardly more than the level's name says. */
export const isWhole = (gaussians: number, wanted: number): boolean =>
  gaussians <= (wanted === DETAIL_LEVELS[DETAIL_LEVELS.length - 1] ? MOST_WHOLE : 1.3 * wanted);

/** Of the width that covers the same surface: splats overlap as it is, and wider ones blur. */
const OVERLAP = 0.95;

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

/** Centres on the neutral head, (N, 3) metres. */
function neutralCentres(file: AvatarFile): Float64Array {
  const points = Float64Array.from(file.offsets);
  for (let i = 0; i < points.length; i++) {
    const t = i - (i % 3);
    for (let k = 0; k < 3; k++) points[i] += file.barycentric[t + k] * file.neutral[3 * file.parents[t + k] + (i % 3)];
  }
  return points;
}

/** Gaussians ordered along a space-filling curve, so that neighbours in the list are neighbours on the head. */
function curveOrder(points: Float64Array): Uint32Array {
  const n = points.length / 3;
  const low = [Infinity, Infinity, Infinity];
  let side = 0;
  for (let i = 0; i < 3 * n; i++) low[i % 3] = Math.min(low[i % 3], points[i]);
  for (let i = 0; i < 3 * n; i++) side = Math.max(side, points[i] - low[i % 3]);
  const scale = 1023 / (side || 1);
  const keys = new Float64Array(n); // Morton code (30 bits) and index in one number, so that the sort is a plain one
  for (let i = 0; i < n; i++) {
    const at = 3 * i;
    const x = spread((points[at] - low[0]) * scale);
    const y = spread((points[at + 1] - low[1]) * scale);
    const z = spread((points[at + 2] - low[2]) * scale);
    keys[i] = (x | (y << 1) | (z << 2)) * n + i;
  }
  keys.sort();
  return Uint32Array.from(keys, (key) => key % n);
}

/** The base vertex that a Gaussian hangs on most. */
function nearestVertex(file: AvatarFile, i: number): number {
  const [a, b, c] = file.barycentric.subarray(3 * i, 3 * i + 3);
  return file.parents[3 * i + (a >= b && a >= c ? 0 : b >= c ? 1 : 2)];
}

/** So many times the wanted runs at most: vertices with much detail get the extra ones. */
const MOST = 1.28;

/** Runs that stand for the Gaussians of one base vertex. */
const runsOf = (size: number, share: number): number => size && Math.max(1, Math.round(size * share));

/** Runs of neighbouring Gaussians, each drawn as one. */
export interface Detail {
  readonly members: Uint32Array; // (N), run after run
  readonly starts: Uint32Array; // (n + 1), where runs begin in `members`
  /** (n), the member in whose place and orientation a run is drawn. */
  readonly index: Uint32Array;
}

/**
 * About `wanted` runs. A run stays with one base vertex, so that what lies behind a surface never mixes with it; there
 * are therefore at least as many runs as vertices in use. Undefined where the avatar has hardly more Gaussians.
 */
export function chooseDetail(file: AvatarFile, wanted: number): Detail | undefined {
  const n = file.gaussianCount;
  if (isWhole(n, wanted)) return undefined;
  const first = new Uint32Array(file.vertexCount + 1);
  for (let i = 0; i < n; i++) first[nearestVertex(file, i) + 1]++;
  for (let v = 0; v < file.vertexCount; v++) first[v + 1] += first[v];
  const members = new Uint32Array(n);
  const next = first.slice();
  const points = neutralCentres(file);
  for (const i of curveOrder(points)) members[next[nearestVertex(file, i)]++] = i;
  // Where splats were split, a vertex carries far more than another: its share is the largest that keeps all runs within MOST of those wanted.
  let share = 0;
  for (let step = wanted / n; step > 1e-6; step /= 2) {
    let total = 0;
    for (let v = 0; v < file.vertexCount; v++) total += runsOf(first[v + 1] - first[v], share + step);
    if (total <= MOST * wanted) share += step;
  }
  const starts: number[] = [];
  for (let v = 0; v < file.vertexCount; v++) {
    const size = first[v + 1] - first[v];
    const runs = runsOf(size, share);
    for (let r = 0; r < runs; r++) starts.push(first[v] + Math.floor((r * size) / runs));
  }
  starts.push(n);
  const index = new Uint32Array(starts.length - 1);
  index.forEach((_, r) => {
    const middle = [0, 1, 2].map((c) => {
      let sum = 0;
      for (let k = starts[r]; k < starts[r + 1]; k++) sum += points[3 * members[k] + c];
      return sum / (starts[r + 1] - starts[r]);
    });
    let nearest = Infinity;
    for (let k = starts[r]; k < starts[r + 1]; k++) {
      const at = 3 * members[k];
      const away = Math.hypot(points[at] - middle[0], points[at + 1] - middle[1], points[at + 2] - middle[2]);
      if (away < nearest) {
        nearest = away;
        index[r] = members[k];
      }
    }
  });
  return { members, starts: Uint32Array.from(starts), index };
}

/** Standard deviation of places on a surface, along either of its two axes. */
function spreadOf(points: Float64Array, members: Uint32Array): number {
  let squares = 0;
  for (let c = 0; c < 3; c++) {
    let sum = 0;
    for (const i of members) sum += points[3 * i + c];
    const mean = sum / members.length;
    for (const i of members) squares += (points[3 * i + c] - mean) ** 2;
  }
  return Math.sqrt(squares / members.length / 2);
}

/**
 * How far a run may reach, in standard deviations of its members' places: as much as `OVERLAP` gives an even grid. Where
 * they lie closer than they are wide (lids, which unfold), they cover less than their number says.
 */
const REACH = 1.9;

/** Scales and colours of all Gaussians, or of runs: their mean, widened to cover the same surface. */
export function appearanceOf(file: AvatarFile, detail?: Detail): Appearance {
  const count = detail ? detail.index.length : file.gaussianCount;
  const scales = new Float32Array(4 * count);
  const colors = new Uint8Array(4 * count);
  const axes = new Float64Array(3);
  const color = new Float64Array(3);
  const points = detail ? neutralCentres(file) : undefined;
  for (let i = 0; i < count; i++) {
    const from = detail ? detail.starts[i] : i;
    const to = detail ? detail.starts[i + 1] : i + 1;
    let opacity = 0;
    axes.fill(0);
    color.fill(0);
    for (let k = from; k < to; k++) {
      const g = detail ? detail.members[k] : k;
      const share = file.opacities[g];
      opacity += share;
      for (let c = 0; c < 3; c++) {
        axes[c] += file.logScales[3 * g + c] / (to - from);
        color[c] += share * file.colors[3 * g + c];
      }
    }
    const thin = axes.indexOf(Math.min(axes[0], axes[1], axes[2])); // across the surface: not widened
    const apart = points && detail ? spreadOf(points, detail.members.subarray(from, to)) : 0;
    for (let c = 0; c < 3; c++) {
      const own = Math.exp(axes[c]);
      const wide = Math.min(own * OVERLAP * Math.sqrt(to - from), Math.hypot(own, REACH * apart));
      scales[4 * i + c] = c === thin || to - from === 1 ? own : wide;
      colors[4 * i + c] = opacity ? Math.round(color[c] / opacity) : 0;
    }
    colors[4 * i + 3] = Math.round(opacity / (to - from));
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
