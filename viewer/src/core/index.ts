/** The viewer's core: reads, poses and sorts avatars. No DOM: it runs in pages, workers and Node. */

export * from "./camera.js";
export * from "./container.js";
export * from "./controls.js";
export * from "./detail.js";
export * from "./life.js";
export * from "./motion.js";
export * from "./params.js";
export * from "./rig.js";
export * from "./rotation.js";
export * from "./shading.js";
export * from "./skeleton.js";
export * from "./sort.js";
export * from "./tracking.js";
