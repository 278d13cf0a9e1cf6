/** Where avatars and motions come from: an address of this page's origin, a block of this page, or a dropped file. */

import { FileError } from "../core/container.js";

const MOST_BYTES = 256 * 2 ** 20;

function fromBase64(text: string): ArrayBuffer {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes.buffer;
}

/**
 * The bytes at `source`: "#id" is a `<script type="application/octet-stream">` of this page that holds base64, all else
 * an address. `remote` allows other origins than the page's own. Throws FileError.
 */
export async function readSource(source: string, root: Document, remote = false): Promise<ArrayBuffer> {
  if (source.startsWith("#")) {
    const block = root.getElementById(source.slice(1));
    if (!block) throw new FileError(`This page has no part ${source}; it may have been saved incompletely.`);
    try {
      return fromBase64(block.textContent ?? "");
    } catch {
      throw new FileError(`The part ${source} of this page is damaged; get the page again.`);
    }
  }
  const address = new URL(source, root.baseURI);
  const own = address.origin === new URL(root.baseURI).origin || address.protocol === "blob:" || address.protocol === "data:";
  if (!own && !remote)
    throw new FileError(`${address.host} is not this page's own server; set the attribute cross-origin to allow it.`);
  let response: Response;
  try {
    response = await fetch(address, { credentials: "same-origin", redirect: remote ? "follow" : "error" });
  } catch {
    throw new FileError(`${source} could not be fetched; check the address and the connection.`);
  }
  if (!response.ok) throw new FileError(`${source} could not be fetched (the server answered ${response.status}).`);
  if (Number(response.headers.get("content-length") ?? 0) > MOST_BYTES) throw new FileError(`${source} is too large.`);
  return response.arrayBuffer();
}

/** The bytes as JSON. Throws FileError. */
export function parseJson(buffer: ArrayBuffer): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(buffer));
  } catch {
    throw new FileError("This is not a motion file (not JSON); make one with `ffavatar estimate`.");
  }
}
