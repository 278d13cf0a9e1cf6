/** Mouse, touch and keyboard on the canvas: orbit, zoom, pan, focus. */

import type { AvatarView } from "./view.js";

const TURN_PER_PX = 0.006;
const DOUBLE_TAP_MS = 320;
const STEP = 0.12;

/** Lets a person steer the camera. Returns a function that takes the listeners off again. */
export function addGestures(view: AvatarView, onReset: () => void): () => void {
  const { canvas } = view;
  const pointers = new Map<number, { x: number; y: number }>();
  const stop = new AbortController();
  const options = { signal: stop.signal };
  let moved = 0;
  let lastTap = { time: -Infinity, x: 0, y: 0 };

  const ratio = (): number => canvas.width / Math.max(1, canvas.clientWidth);
  const pan = (dx: number, dy: number): void => view.orbit.pan(dx * ratio(), dy * ratio(), view.camera());
  const focus = (event: MouseEvent): void => {
    const box = canvas.getBoundingClientRect();
    const point = view.pick((event.clientX - box.left) * ratio(), (event.clientY - box.top) * ratio());
    if (!point) return;
    view.orbit.target = point;
    view.orbit.zoom(0.7);
    view.invalidate();
  };

  canvas.addEventListener(
    "pointerdown",
    (event) => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      canvas.setPointerCapture(event.pointerId);
      moved = 0;
    },
    options,
  );
  canvas.addEventListener(
    "pointermove",
    (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const dx = event.clientX - before.x;
      const dy = event.clientY - before.y;
      moved += Math.abs(dx) + Math.abs(dy);
      const others = [...pointers.entries()].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      if (others.length) {
        const other = others[0];
        const was = Math.hypot(before.x - other.x, before.y - other.y);
        const is = Math.hypot(event.clientX - other.x, event.clientY - other.y);
        if (was > 0 && is > 0) view.orbit.zoom(was / is);
        pan(dx / 2, dy / 2);
      } else if (event.buttons & 2 || event.shiftKey || event.ctrlKey) {
        pan(dx, dy);
      } else {
        view.orbit.turn(-dx * TURN_PER_PX, dy * TURN_PER_PX);
      }
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      view.invalidate();
    },
    options,
  );
  canvas.addEventListener(
    "pointerup",
    (event) => {
      const alone = pointers.size === 1;
      pointers.delete(event.pointerId);
      if (!alone || moved > 8 || event.button !== 0) return;
      const near = Math.hypot(event.clientX - lastTap.x, event.clientY - lastTap.y) < 24;
      if (near && event.timeStamp - lastTap.time < DOUBLE_TAP_MS) {
        focus(event);
        lastTap = { time: -Infinity, x: 0, y: 0 };
      } else lastTap = { time: event.timeStamp, x: event.clientX, y: event.clientY };
    },
    options,
  );
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId), options);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault(), options);
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      view.orbit.zoom(Math.exp(0.0015 * event.deltaY * (event.deltaMode === 1 ? 20 : 1)));
      view.invalidate();
    },
    { ...options, passive: false },
  );
  canvas.addEventListener(
    "keydown",
    (event) => {
      const { orbit } = view;
      const step = (x: number, y: number): void => (event.shiftKey ? pan(400 * x, 400 * y) : orbit.turn(-x, y));
      const actions: Record<string, () => void> = {
        ArrowLeft: () => step(-STEP, 0),
        ArrowRight: () => step(STEP, 0),
        ArrowUp: () => step(0, -STEP),
        ArrowDown: () => step(0, STEP),
        "+": () => orbit.zoom(0.9),
        "=": () => orbit.zoom(0.9),
        "-": () => orbit.zoom(1 / 0.9),
        Home: onReset,
        "0": onReset,
        " ": () => (view.isPlaying ? view.pause() : view.play()),
      };
      const action = event.altKey || event.metaKey ? undefined : actions[event.key];
      if (!action) return;
      event.preventDefault();
      action();
      view.invalidate();
    },
    options,
  );
  return () => stop.abort();
}
