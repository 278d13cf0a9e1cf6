/** Rotations as `ffavatar.geometry` writes them: axis-angle in radians, matrices row-major, quaternions wxyz. */

export type Vec3 = readonly [number, number, number];
export type Quat = readonly [number, number, number, number];

/** Rodrigues' formula; 9 numbers, row-major. */
export function axisAngleToMatrix(x: number, y: number, z: number): Float64Array {
  const squared = x * x + y * y + z * z;
  const small = squared < 1e-6; // the Taylor series, as in Python
  const angle = Math.sqrt(squared);
  const first = small ? 1 - squared / 6 : Math.sin(angle) / angle;
  const second = small ? 0.5 - squared / 24 : (1 - Math.cos(angle)) / squared;
  return Float64Array.of(
    1 - second * (y * y + z * z), second * x * y - first * z, second * x * z + first * y,
    second * x * y + first * z, 1 - second * (x * x + z * z), second * y * z - first * x,
    second * x * z - first * y, second * y * z + first * x, 1 - second * (x * x + y * y),
  );
}

export function axisAngleToQuat([x, y, z]: Vec3): Quat {
  const squared = x * x + y * y + z * z;
  const small = squared < 1e-6;
  const angle = Math.sqrt(squared);
  const factor = small ? 0.5 - squared / 48 : Math.sin(angle / 2) / angle;
  return [small ? 1 - squared / 8 : Math.cos(angle / 2), factor * x, factor * y, factor * z];
}

export function quatToAxisAngle(q: Quat): [number, number, number] {
  const sign = q[0] < 0 ? -1 : 1;
  const norm = Math.hypot(q[1], q[2], q[3]);
  const factor = norm < 1e-7 ? 2 : (2 * Math.atan2(norm, sign * q[0])) / norm;
  return [sign * q[1] * factor, sign * q[2] * factor, sign * q[3] * factor];
}

/** The rotation `b` followed by `a`. */
export function quatMultiply(a: Quat, b: Quat): Quat {
  return [
    a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
    a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
    a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
    a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
  ];
}

/** Rotation `part` of the shortest way from `start` to `end`, axis-angle. */
export function slerpAxisAngle(start: Vec3, end: Vec3, part: number): [number, number, number] {
  const inverse = axisAngleToQuat([-start[0], -start[1], -start[2]]);
  const step = quatToAxisAngle(quatMultiply(inverse, axisAngleToQuat(end)));
  const moved = axisAngleToQuat([step[0] * part, step[1] * part, step[2] * part]);
  return quatToAxisAngle(quatMultiply(axisAngleToQuat(start), moved));
}

export function multiplyMatrices(a: Float64Array, b: Float64Array): Float64Array {
  const out = new Float64Array(9);
  for (let i = 0; i < 3; i++)
    for (let j = 0; j < 3; j++) out[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
  return out;
}

export function applyMatrix(m: Float64Array, [x, y, z]: Vec3): [number, number, number] {
  return [m[0] * x + m[1] * y + m[2] * z, m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z];
}
