/** Pose and expression of a head in one frame: Python's `HeadParams`. */

export const JOINTS = ["root", "neck", "jaw", "eye_left", "eye_right"] as const;
export type JointName = (typeof JOINTS)[number];

/** How far a resting head stands in front of the normalised camera, metres. */
export const RESTING_DISTANCE_M = 1.15;

export interface HeadParams {
  /** (5, 3) axis-angle in radians: root, neck, jaw, eye_left, eye_right. */
  readonly joints: Float64Array;
  /** Metres. */
  readonly translation: Float64Array;
  /** One coefficient per expression name. */
  readonly expression: Float64Array;
}

export function neutralParams(expressions: number): HeadParams {
  return {
    joints: new Float64Array(15),
    translation: Float64Array.of(0, 0, -RESTING_DISTANCE_M),
    expression: new Float64Array(expressions),
  };
}

export function copyParams(params: HeadParams): HeadParams {
  return {
    joints: params.joints.slice(),
    translation: params.translation.slice(),
    expression: params.expression.slice(),
  };
}
