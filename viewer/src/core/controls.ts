/** What a person or a program steers by name: ARKit coefficients, head angles and the head's own expressions. */

import type { AvatarFile } from "./container.js";
import type { HeadParams } from "./params.js";

export type ControlGroup = "head" | "eyes" | "brows" | "mouth" | "other";

export interface Control {
  readonly name: string;
  readonly label: string;
  readonly group: ControlGroup;
  readonly min: number;
  readonly max: number;
}

/** Head angles: name -> joint row, axis, and the largest angle in radians. */
const ANGLES: readonly { name: string; label: string; joint: number; axis: number; limit: number }[] = [
  { name: "headYaw", label: "Head turn", joint: 1, axis: 1, limit: 0.7 },
  { name: "headPitch", label: "Head nod", joint: 1, axis: 0, limit: 0.45 },
  { name: "headRoll", label: "Head tilt", joint: 1, axis: 2, limit: 0.4 },
  { name: "bodyYaw", label: "Body turn", joint: 0, axis: 1, limit: 0.9 },
  { name: "bodyPitch", label: "Body lean", joint: 0, axis: 0, limit: 0.4 },
  { name: "bodyRoll", label: "Body tilt", joint: 0, axis: 2, limit: 0.3 },
];

function groupOf(name: string): ControlGroup {
  if (/brow/i.test(name)) return "brows";
  if (/eye/i.test(name)) return "eyes";
  if (/mouth|jaw|tongue|lip|cheek|nose/i.test(name)) return "mouth";
  return /neck|head/i.test(name) ? "head" : "other";
}

/** eyeBlinkLeft -> "Eye blink left"; mh_mouth-open_L -> "Mouth open left (fine)". */
export function labelOf(name: string): string {
  const fine = name.startsWith("mh_");
  const words = name
    .replace(/^mh_/, "")
    .replace(/_L$/, " left")
    .replace(/_R$/, " right")
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .replace(/[-_]+/g, " ")
    .toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1) + (fine ? " (fine)" : "");
}

/** Every control that an avatar has; ARKit's and the head's angles first. */
export function controlsOf(file: Pick<AvatarFile, "expressionNames" | "arkitPose">): Control[] {
  const angles = ANGLES.map(({ name, label, limit }): Control => ({ name, label, group: "head", min: -limit, max: limit }));
  const named = [...Object.keys(file.arkitPose), ...file.expressionNames];
  const rest = named.map((name): Control => {
    const signed = !/^(mh_|[a-z]+[A-Z])/.test(name); // statistical bases have both signs, named shapes begin at 0
    return { name, label: labelOf(name), group: groupOf(name), min: signed ? -3 : 0, max: signed ? 3 : 1 };
  });
  const fine = (control: Control): number => (control.name.startsWith("mh_") ? 1 : 0);
  return [...angles, ...rest.sort((a, b) => fine(a) - fine(b))];
}

/** Adds named values (such as ARKit's) to a pose, in place. Names that the avatar does not know are returned. */
export function addControls(
  file: Pick<AvatarFile, "expressionNames" | "arkitPose">,
  values: Readonly<Record<string, number>>,
  params: HeadParams,
): string[] {
  const unknown: string[] = [];
  for (const [name, value] of Object.entries(values)) {
    if (!Number.isFinite(value)) continue;
    const angle = ANGLES.find((a) => a.name === name);
    const pose = Object.hasOwn(file.arkitPose, name) ? file.arkitPose[name] : undefined;
    const column = file.expressionNames.indexOf(name);
    if (angle) params.joints[3 * angle.joint + angle.axis] += value;
    if (pose) for (let k = 0; k < 15; k++) params.joints[k] += value * pose[k];
    if (column >= 0) params.expression[column] += value;
    if (!angle && !pose && column < 0) unknown.push(name);
  }
  return unknown;
}

/** A plausible expression: a turned head and a few shapes, the same on both sides of the face. */
export function randomValues(controls: readonly Control[], random: () => number = Math.random): Record<string, number> {
  const values: Record<string, number> = {};
  const known = new Map(controls.map((control) => [control.name, control]));
  const set = (name: string, value: number): void => {
    const control = known.get(name);
    if (control) values[name] = Math.max(control.min, Math.min(control.max, value));
  };
  const signed = (): number => 2 * random() - 1;
  set("headYaw", 0.4 * signed());
  set("headPitch", 0.18 * signed());
  set("headRoll", 0.15 * signed());
  const pairs = ["mouthSmile", "mouthFrown", "mouthUpperUp", "mouthLowerDown", "mouthStretch", "mouthDimple"];
  pairs.push("browDown", "browOuterUp", "eyeSquint", "eyeWide", "cheekSquint", "noseSneer");
  const chosen = new Set(Array.from({ length: 3 }, () => pairs[Math.floor(random() * pairs.length)]));
  for (const pair of chosen) {
    const value = 0.3 + 0.5 * random();
    for (const side of ["Left", "Right"]) set(pair + side, value * (0.85 + 0.3 * random()));
  }
  if (random() < 0.5) set("jawOpen", 0.6 * random());
  if (random() < 0.4) set("browInnerUp", 0.8 * random());
  if (random() < 0.3) set(random() < 0.5 ? "mouthPucker" : "mouthFunnel", 0.6 * random());
  return values;
}
