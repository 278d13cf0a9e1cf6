/** Photos by the device's camera. */

import { announce, button, make } from "./dom.js";

const WISHES = ["Look straight into the camera.", "Turn your head a little to the left.", "Turn your head a little to the right.", "Now one with a smile."];

/** Opens the camera in a dialog; each shot is handed over at once. Resolves when the dialog is closed. */
export async function shoot(taken: (file: File) => void): Promise<void> {
  const video = make("video", { "aria-label": "What the camera sees" });
  Object.assign(video, { muted: true, playsInline: true });
  const hint = make("p", { class: "hint" }, "Allow the camera in your browser.");
  const problem = make("p", { class: "problem", role: "alert" });
  let count = 0;
  let stream: MediaStream | undefined;
  const shutter = button("Take photo", "main", () => {
    const canvas = make("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d")?.drawImage(video, 0, 0); // as others see it: not mirrored
    canvas.toBlob(
      (blob) => {
        if (!blob) return;
        count++;
        taken(new File([blob], `camera-${count}.jpg`, { type: "image/jpeg" }));
        hint.textContent = WISHES[Math.min(count, WISHES.length - 1)];
        announce(`${count} ${count === 1 ? "photo" : "photos"} taken. ${hint.textContent}`);
      },
      "image/jpeg",
      0.95,
    );
  });
  shutter.disabled = true;
  const done = button("Done", "plain", () => dialog.close());
  const dialog = make("dialog", { class: "camera", "aria-label": "Take photos" }, make("h2", {}, "Take photos"), video, hint, problem, make("div", { class: "answers" }, done, shutter));
  document.body.append(dialog);
  const closed = new Promise<void>((resolve) => dialog.addEventListener("close", () => resolve()));
  dialog.showModal();
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 960 }, facingMode: "user" },
      audio: false,
    });
    if (!dialog.open) stop(stream);
    video.srcObject = stream;
    await video.play();
    shutter.disabled = false;
    shutter.focus();
    hint.textContent = WISHES[0];
  } catch (error) {
    hint.textContent = "";
    if (dialog.open) problem.textContent = reason(error as DOMException);
  }
  await closed;
  if (stream) stop(stream);
  dialog.remove();
}

function stop(stream: MediaStream): void {
  stream.getTracks().forEach((track) => track.stop());
}

function reason({ name }: DOMException): string {
  if (name === "NotAllowedError") return "The camera was not allowed. Allow it in the browser's address bar, and open this again.";
  if (name === "SecurityError") return "Browsers lend the camera only to pages from this computer or over https. Choose photo files instead.";
  return "No camera was found. Choose photo files instead.";
}
