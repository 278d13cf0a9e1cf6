/** Cameras in OpenCV's convention (x right, y down, z forward), and the orbit that a person steers. */

import type { Vec3 } from "./rotation.js";

export interface Camera {
  /** (4, 4) row-major. */
  readonly worldToCam: Float64Array;
  readonly fx: number;
  readonly fy: number;
  readonly cx: number;
  readonly cy: number;
  readonly width: number;
  readonly height: number;
}

/** Focal length of the normalised camera in picture sides. */
export const NORMALISED_FOCAL = 3;

/** The camera of the head crops, for any shape of picture: focal length 3 x its shorter side. */
export function normalisedCamera(width: number, height: number): Camera {
  const focal = NORMALISED_FOCAL * Math.min(width, height);
  const worldToCam = Float64Array.of(1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1);
  return { worldToCam, fx: focal, fy: focal, cx: width / 2, cy: height / 2, width, height };
}

export const forwardOf = (camera: { readonly worldToCam: ArrayLike<number> }): [number, number, number] => [
  camera.worldToCam[8],
  camera.worldToCam[9],
  camera.worldToCam[10],
];

const PITCH_LIMIT = 1.45;

/** A camera on a sphere about `target`; at rest it is the normalised camera at the height of the target. */
export class Orbit {
  yaw = 0;
  pitch = 0;
  distance: number;
  target: [number, number, number];

  /** `home`: the point turned about; the resting camera looks straight at it from z = 0. */
  constructor(private readonly home: Vec3) {
    this.target = [...home];
    this.distance = -home[2];
    this.reset();
  }

  reset(): void {
    this.yaw = 0;
    this.pitch = 0;
    this.target = [...this.home];
    this.distance = -this.home[2];
  }

  /** Angles in radians; positive yaw moves the camera to the person's left. */
  turn(yaw: number, pitch: number): void {
    this.yaw += yaw;
    this.pitch = Math.max(-PITCH_LIMIT, Math.min(PITCH_LIMIT, this.pitch + pitch));
  }

  zoom(factor: number): void {
    this.distance = Math.max(0.15, Math.min(6, this.distance * factor));
  }

  /** Moves the target by pixels of the picture. */
  pan(dx: number, dy: number, camera: Camera): void {
    const m = camera.worldToCam;
    const perPixel = this.distance / camera.fx;
    for (let k = 0; k < 3; k++) this.target[k] -= perPixel * (dx * m[k] + dy * m[4 + k]);
  }

  camera(width: number, height: number): Camera {
    const base = normalisedCamera(width, height);
    const cy = Math.cos(this.yaw), sy = Math.sin(this.yaw), cp = Math.cos(this.pitch), sp = Math.sin(this.pitch);
    const back: Vec3 = [sy * cp, sp, cy * cp]; // from the target to the camera
    const right: Vec3 = [cy, 0, -sy];
    const down: Vec3 = [sy * sp, -cp, cy * sp];
    const eye = this.target.map((x, k) => x + this.distance * back[k]);
    const rows: Vec3[] = [right, down, [-back[0], -back[1], -back[2]]];
    const m = base.worldToCam;
    rows.forEach((row, r) => {
      m.set(row, 4 * r);
      m[4 * r + 3] = -(row[0] * eye[0] + row[1] * eye[1] + row[2] * eye[2]);
    });
    return base;
  }
}
