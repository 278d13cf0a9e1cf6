/** From a face tracker's scores and matrix to named values: neutral calibration, smoothing, mirroring. */

import { quatToAxisAngle, type Quat } from "./rotation.js";

/** What a tracker saw in one frame. */
export interface FaceReading {
  /** ARKit names -> [0, 1]. */
  readonly scores: Readonly<Record<string, number>>;
  /** (4, 4) column-major, face to camera: x right in the picture, y up, z towards the camera. */
  readonly matrix: ArrayLike<number>;
}

/** The one-euro filter (Casiez et al. 2012): steady when the signal rests, quick when it moves. */
export class OneEuro {
  private value: number | undefined;
  private slope = 0;

  /** `cutoff` in Hz at rest; `beta`: how much speed raises it. */
  constructor(
    private readonly cutoff: number,
    private readonly beta: number,
  ) {}

  /** The filtered value, `seconds` after the last one. */
  next(raw: number, seconds: number): number {
    if (this.value === undefined || !(seconds > 0)) return (this.value ??= raw);
    const share = (cutoff: number): number => 1 / (1 + 1 / (2 * Math.PI * cutoff * seconds));
    this.slope += share(1) * ((raw - this.value) / seconds - this.slope);
    this.value += share(this.cutoff + this.beta * Math.abs(this.slope)) * (raw - this.value);
    return this.value;
  }
}

/** Shepperd's method on a column-major (4, 4) matrix's rotation; wxyz. */
function matrixQuat(m: ArrayLike<number>): Quat {
  const at = (row: number, column: number): number => m[4 * column + row];
  const trace = at(0, 0) + at(1, 1) + at(2, 2);
  const [wx, wy, wz] = [at(2, 1) - at(1, 2), at(0, 2) - at(2, 0), at(1, 0) - at(0, 1)];
  const [xy, xz, yz] = [at(0, 1) + at(1, 0), at(0, 2) + at(2, 0), at(1, 2) + at(2, 1)];
  const rows = [
    [1 + trace, wx, wy, wz],
    [wx, 1 + 2 * at(0, 0) - trace, xy, xz],
    [wy, xy, 1 + 2 * at(1, 1) - trace, yz],
    [wz, xz, yz, 1 + 2 * at(2, 2) - trace],
  ];
  const best = [1, 2, 3].reduce((a, k) => (rows[k][k] > rows[a][a] ? k : a), 0);
  const norm = Math.hypot(...rows[best]);
  return rows[best].map((x) => x / norm) as unknown as Quat;
}

const ANGLES = ["headPitch", "headYaw", "headRoll"] as const;
const CALIBRATION_FRAMES = 12;

/** Turns readings into values for `setARKit`. */
export class FaceDriver {
  private neutral: Record<string, number> = {};
  private gathered: Record<string, number>[] = [];
  private filters = new Map<string, OneEuro>();
  private calibrating = true;

  /** `mirror`: the avatar moves as a mirror image would. */
  constructor(public mirror = true) {}

  /** The next frames become the neutral face. */
  calibrate(): void {
    this.calibrating = true;
    this.gathered = [];
  }

  get isCalibrating(): boolean {
    return this.calibrating;
  }

  /** Values for the avatar, `seconds` after the last reading; none while calibrating. */
  next({ scores, matrix }: FaceReading, seconds: number): Record<string, number> {
    const raw: Record<string, number> = { ...scores };
    delete raw["_neutral"];
    const turn = quatToAxisAngle(matrixQuat(matrix));
    ANGLES.forEach((name, k) => (raw[name] = turn[k]));
    if (this.calibrating) {
      this.gathered.push(raw);
      if (this.gathered.length < CALIBRATION_FRAMES) return {};
      this.neutral = Object.fromEntries(
        Object.keys(raw).map((name) => {
          const values = this.gathered.map((reading) => reading[name] ?? 0).sort((a, b) => a - b);
          return [name, values[values.length >> 1]]; // the median: a blink meanwhile does no harm
        }),
      );
      this.calibrating = false;
      this.filters.clear();
    }
    const values: Record<string, number> = {};
    for (const [name, value] of Object.entries(raw)) {
      const rest = this.neutral[name] ?? 0;
      const angle = (ANGLES as readonly string[]).includes(name);
      const moved = angle ? value - rest : Math.max(0, value - rest) / Math.max(1 - rest, 0.2);
      if (!this.filters.has(name)) this.filters.set(name, angle ? new OneEuro(1.2, 2) : new OneEuro(2, 1.5));
      values[name] = this.filters.get(name)?.next(moved, seconds) ?? moved;
    }
    return this.mirror ? mirrored(values) : values;
  }
}

function mirrored(values: Record<string, number>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => {
      if (name === "headYaw" || name === "headRoll") return [name, -value];
      const other = name.replace(/Left$|Right$/, (side) => (side === "Left" ? "Right" : "Left"));
      return [other, value];
    }),
  );
}
