/** The bundled worker as text (see build.mjs). */
declare module "worker-source" {
  const source: string;
  export default source;
}
