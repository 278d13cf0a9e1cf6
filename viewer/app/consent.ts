/** What a person agrees to before the first photo or film leaves the browser. */

import { ask, make } from "./dom.js";

const KEY = "ffavatar.consent";
const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/;

/** Whether the server is this computer itself. */
export const isLocal = (): boolean => LOOPBACK.test(location.hostname);

/** Where uploads go, in one sentence. */
export const whereText = (): string =>
  isLocal()
    ? "Everything stays on this computer."
    : `Photos and avatars are kept on ${location.host} and go nowhere else.`;

let asking: Promise<boolean> | undefined;

/** Asks once for each browser. */
export async function mayUpload(): Promise<boolean> {
  if (localStorage.getItem(KEY)) return true;
  asking ??= ask(
    "Whose face is it?",
    [
      make("p", {}, "An avatar can be made to say and do what its person never did. Use only photos and films of yourself, or of people who have agreed to it and to what you will do with it."),
      make("p", {}, isLocal()
        ? "Everything stays on this computer: photos are worked on by the program that serves this page, and nothing is sent elsewhere."
        : `Photos are sent to ${location.host}, which makes the avatar, and nowhere else.`),
      make("p", {}, "Do not use avatars to deceive, harass or impersonate. Films carry a mark that says they are synthetic; leave it in."),
    ],
    [
      { value: "", label: "Cancel", look: "plain" },
      { value: "agreed", label: "I have their consent", look: "main" },
    ],
  ).then((answer) => {
    asking = undefined;
    if (answer === "agreed") localStorage.setItem(KEY, new Date().toISOString());
    return answer === "agreed";
  });
  return asking;
}
