/** Depth order of Gaussians: a stable two-pass radix sort on 22 bits of depth (0.1 micrometres on a head). */

const BITS = 11;
const BUCKETS = 1 << BITS;
const LEVELS = (1 << (2 * BITS)) - 1;

export class DepthSorter {
  private keys = new Uint32Array(0);
  private first = new Uint32Array(0);
  private depths = new Float64Array(0);
  private readonly low = new Uint32Array(BUCKETS);
  private readonly high = new Uint32Array(BUCKETS);

  /**
   * Writes the order, farthest first, into `order` (n).
   *
   * `posed` holds rows of `stride` numbers that begin with the centre. `forward` is the camera's viewing direction; of
   * equally deep Gaussians the one with the lower index is nearer, as in the rasteriser.
   */
  sort(posed: Float32Array, stride: number, forward: readonly [number, number, number], order: Uint32Array): void {
    const n = order.length;
    if (this.keys.length !== n) {
      this.keys = new Uint32Array(n);
      this.first = new Uint32Array(n);
      this.depths = new Float64Array(n);
    }
    const { keys, first, depths, low, high } = this;
    const [fx, fy, fz] = forward;
    let nearest = Infinity;
    let farthest = -Infinity;
    for (let i = 0, at = 0; i < n; i++, at += stride) {
      const depth = fx * posed[at] + fy * posed[at + 1] + fz * posed[at + 2];
      depths[i] = depth;
      if (depth < nearest) nearest = depth;
      if (depth > farthest) farthest = depth;
    }
    const scale = farthest > nearest ? LEVELS / (farthest - nearest) : 0;
    low.fill(0);
    high.fill(0);
    for (let i = 0; i < n; i++) {
      const key = ((farthest - depths[i]) * scale) | 0; // 0 is the farthest
      keys[i] = key;
      low[key & (BUCKETS - 1)]++;
      high[key >>> BITS]++;
    }
    for (let b = 0, a = 0, c = 0; b < BUCKETS; b++) {
      const inLow = low[b];
      const inHigh = high[b];
      low[b] = a;
      high[b] = c;
      a += inLow;
      c += inHigh;
    }
    for (let i = n - 1; i >= 0; i--) first[low[keys[i] & (BUCKETS - 1)]++] = i; // backwards: higher indices are farther
    for (let k = 0; k < n; k++) {
      const i = first[k];
      order[high[keys[i] >>> BITS]++] = i;
    }
  }
}
