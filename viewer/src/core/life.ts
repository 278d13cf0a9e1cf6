/** What makes a still avatar look alive: blinking, breathing, and eyes that follow a point. */

import type { HeadParams } from "./params.js";
import {
  axisAngleToMatrix,
  axisAngleToQuat,
  multiplyMatrices,
  quatMultiply,
  quatToAxisAngle,
  type Vec3,
} from "./rotation.js";
import type { Skeleton } from "./skeleton.js";

const EYE_JOINTS = [3, 4] as const;
const GAZE_YAW = 0.5;
const GAZE_PITCH = 0.35;
const GAPS_S = [2.6, 3.7, 1.9, 4.4, 0.5, 3.1];

function ramp(x: number, start: number, width: number): number {
  const t = Math.max(0, Math.min(1, (x - start) / width));
  return t * t * (3 - 2 * t);
}

/** Lids in [0, 1] at a time in seconds: closing in 70 ms, opening in 150 ms, at uneven times. */
export function blinkAt(time: number): number {
  const round = GAPS_S.reduce((a, b) => a + b, 0);
  let at = time % round;
  for (const gap of GAPS_S) {
    if (at < gap) return ramp(at, gap - 0.35, 0.07) * (1 - ramp(at, gap - 0.26, 0.15));
    at -= gap;
  }
  return 0;
}

/** Adds blinking and breathing to a pose, in place. */
export function addIdle(params: HeadParams, expressionNames: readonly string[], time: number): void {
  for (const name of ["eyeBlinkLeft", "eyeBlinkRight"]) {
    const column = expressionNames.indexOf(name);
    if (column >= 0) params.expression[column] = Math.max(params.expression[column], blinkAt(time));
  }
  const breath = Math.sin((2 * Math.PI * time) / 3.8);
  params.translation[1] += 0.0012 * breath;
  params.joints[3] += 0.008 * breath + 0.012 * Math.sin((2 * Math.PI * time) / 9.1); // neck
  params.joints[4] += 0.018 * Math.sin((2 * Math.PI * time) / 11.3 + 1);
}

/** Turns both eyes towards a point of the world (metres), in place, as far as eyes turn. */
export function addGaze(skeleton: Skeleton, params: HeadParams, point: Vec3): void {
  const root = axisAngleToMatrix(params.joints[0], params.joints[1], params.joints[2]);
  const neck = axisAngleToMatrix(params.joints[3], params.joints[4], params.joints[5]);
  const head = multiplyMatrices(root, neck);
  for (const joint of EYE_JOINTS) {
    const eye = skeleton.position(joint, params);
    const away = [point[0] - eye[0], point[1] - eye[1], point[2] - eye[2]];
    const [x, y, z] = [0, 1, 2].map((c) => head[c] * away[0] + head[3 + c] * away[1] + head[6 + c] * away[2]);
    const yaw = Math.atan2(x, Math.max(z, 1e-6));
    const pitch = -Math.atan2(y, Math.hypot(x, z));
    const up = axisAngleToQuat([Math.max(-GAZE_PITCH, Math.min(GAZE_PITCH, pitch)), 0, 0]);
    const aside = axisAngleToQuat([0, Math.max(-GAZE_YAW, Math.min(GAZE_YAW, yaw)), 0]);
    params.joints.set(quatToAxisAngle(quatMultiply(aside, up)), 3 * joint);
  }
}
