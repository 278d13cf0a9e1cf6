/** The viewer: importing this defines `<ff-avatar>`. */

import { FFAvatarElement } from "./ui/element.js";

export { FFAvatarElement, type DetailName, type FFAvatarEventMap } from "./ui/element.js";
export { AvatarView, type ViewEvents } from "./ui/view.js";
export { GraphicsError, Renderer, type Background, type Precision } from "./render/renderer.js";
export { FileError } from "./core/container.js";
export type { HeadParams } from "./core/params.js";
export type { AvatarInfo } from "./worker/messages.js";

if (!customElements.get("ff-avatar")) customElements.define("ff-avatar", FFAvatarElement);

declare global {
  interface HTMLElementTagNameMap {
    "ff-avatar": FFAvatarElement;
  }
}
