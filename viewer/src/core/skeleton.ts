/** The five joints: global (the torso), neck, jaw, eye_left, eye_right. */

import type { HeadParams } from "./params.js";
import { applyMatrix, axisAngleToMatrix, axisAngleToQuat, multiplyMatrices, quatMultiply, type Quat } from "./rotation.js";

const PARENT_JOINT = [-1, 0, 1, 1, 1];
export const JOINT_COUNT = 5;
/** Pose correctives: the entries of R - 1 of joints 1 to 4. */
export const CORRECTIVES = 36;
/** Numbers per joint: rotation (9, row-major), translation (3), quaternion wxyz (4). */
export const JOINT_STRIDE = 16;

export class Skeleton {
  /** (5, 16) after `pose`: the joints' motions relative to rest, x -> rotation x + translation, and their quaternions. */
  readonly data = new Float64Array(JOINT_COUNT * JOINT_STRIDE);
  private readonly expressionCount: number;

  /** `restJoints` (5, 3) metres; `jointExpdirs` (5, 3, E): how expressions move them. */
  constructor(
    private readonly restJoints: Float32Array,
    private readonly jointExpdirs: Float32Array,
  ) {
    this.expressionCount = jointExpdirs.length / 15;
  }

  /** Where joint j (0 to 4) of the posed head is, metres. */
  position(joint: number, params: HeadParams): [number, number, number] {
    this.pose(params);
    const data = this.data.subarray(joint * JOINT_STRIDE, (joint + 1) * JOINT_STRIDE);
    const [x, y, z] = applyMatrix(data, this.restJoint(joint, params));
    return [x + data[9], y + data[10], z + data[11]];
  }

  private restJoint(joint: number, { expression }: HeadParams): [number, number, number] {
    const E = this.expressionCount;
    const place: [number, number, number] = [0, 0, 0];
    for (let c = 0; c < 3; c++) {
      let value = this.restJoints[3 * joint + c];
      const row = (3 * joint + c) * E;
      for (let e = 0; e < E; e++) value += this.jointExpdirs[row + e] * expression[e];
      place[c] = value;
    }
    return place;
  }

  /** Fills `data` with the joints' motions relative to rest; returns the 36 numbers of the correctives. */
  pose(params: HeadParams): Float64Array {
    const feature = new Float64Array(CORRECTIVES);
    const rotations: Float64Array[] = [];
    const shifts: [number, number, number][] = [];
    const quats: Quat[] = [];
    for (let j = 0; j < JOINT_COUNT; j++) {
      const [x, y, z] = params.joints.subarray(3 * j, 3 * j + 3);
      const local = axisAngleToMatrix(x, y, z);
      const localQuat = axisAngleToQuat([x, y, z]);
      const rest = this.restJoint(j, params);
      const parent = PARENT_JOINT[j];
      let pivot = rest;
      if (parent < 0) {
        rotations.push(local);
        quats.push(localQuat);
      } else {
        rotations.push(multiplyMatrices(rotations[parent], local));
        quats.push(quatMultiply(quats[parent], localQuat));
        // the joint itself goes where its parent takes it, and the rest of the body part turns about it
        const carried = applyMatrix(rotations[parent], rest);
        pivot = [carried[0] + shifts[parent][0], carried[1] + shifts[parent][1], carried[2] + shifts[parent][2]];
        for (let k = 0; k < 9; k++) feature[9 * (j - 1) + k] = local[k] - (k % 4 === 0 ? 1 : 0);
      }
      const turned = applyMatrix(rotations[j], rest);
      shifts.push([pivot[0] - turned[0], pivot[1] - turned[1], pivot[2] - turned[2]]);
      const data = this.data.subarray(j * JOINT_STRIDE, (j + 1) * JOINT_STRIDE);
      data.set(rotations[j], 0);
      for (let c = 0; c < 3; c++) data[9 + c] = shifts[j][c] + params.translation[c];
      data.set(quats[j], 12);
    }
    return feature;
  }
}
