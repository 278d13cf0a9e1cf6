/** The element's looks. A constructed style sheet, which strict content security policies allow. */

const CSS = `
:host { display: grid; grid-template-columns: minmax(0, 1fr) auto; position: relative; min-height: 200px; overflow: hidden;
  container-type: size; color: var(--text); font: 14px/1.45 system-ui, sans-serif; color-scheme: dark; --panel: #1b1d24;
  --line: #343844; --accent: #7aa2ff; --text: #e8eaf0; --muted: #9aa1b2; --field: #262932; --press: #ffffff14;
  --float: #1b1d24e6; }
:host([hidden]) { display: none; }
[hidden] { display: none !important; }
.stage { position: relative; min-width: 0; min-height: 0; }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; touch-action: none; cursor: grab; }
canvas:active { cursor: grabbing; }
canvas:focus-visible { outline: 3px solid var(--accent); outline-offset: -3px; }
:host([controls][data-clear]) .stage { background: repeating-conic-gradient(#e9e9ee 0 25%, #fff 0 50%) 0 0 / 24px 24px; }
.status, .message { position: absolute; left: 50%; top: 45%; transform: translate(-50%, -50%); max-width: min(30em, 86%);
  padding: .7em 1.1em; border-radius: 10px; text-align: center; background: var(--float); box-sizing: border-box; }
.status:empty { display: none; }
.message { border: 1px solid #ff8a7a; width: max-content; }
.bar { position: absolute; left: 50%; bottom: 14px; transform: translateX(-50%); display: flex; gap: 4px; padding: 5px;
  border-radius: 14px; background: var(--float); box-shadow: 0 2px 10px #0004; }
button { font: inherit; color: inherit; background: none; border: 0; border-radius: 10px; width: 40px; height: 40px;
  padding: 8px; cursor: pointer; flex: none; }
button:hover { background: var(--press); }
button.active { color: #ff6b6b; }
svg { width: 100%; height: 100%; display: block; fill: none; stroke: currentColor; stroke-width: 1.7;
  stroke-linecap: round; stroke-linejoin: round; }
:is(button, input, select, summary):focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.panel { width: 300px; overflow-y: auto; background: var(--panel); padding: 4px 18px 18px; box-sizing: border-box;
  scrollbar-color: #4a4f5e transparent; scrollbar-width: thin; }
:host([data-folded]) .panel { display: none; }
h2 { font-size: 12px; letter-spacing: .08em; text-transform: uppercase; color: var(--muted); margin: 18px 0 8px; font-weight: 600; }
.line { display: flex; align-items: center; justify-content: space-between; gap: 10px; min-height: 36px; }
.line input[type=range] { flex: 1; }
.line label { display: flex; align-items: center; gap: 6px; }
.clock { font-variant-numeric: tabular-nums; flex: 1; }
.clip button { background: var(--press); border-radius: 50%; }
select, input[type=search] { font: inherit; color: inherit; background: var(--field); border: 1px solid var(--line);
  border-radius: 8px; padding: 6px 9px; box-sizing: border-box; }
select { max-width: 160px; }
input[type=search] { width: 100%; margin-bottom: 8px; }
input[type=color] { width: 44px; height: 28px; padding: 0; border: 1px solid var(--line); border-radius: 6px; background: none; }
input[type=checkbox] { width: 18px; height: 18px; accent-color: var(--accent); }
input[type=range] { accent-color: var(--accent); min-width: 0; height: 22px; margin: 0; }
details { border-top: 1px solid var(--line); }
summary { padding: 9px 2px; cursor: pointer; font-weight: 600; }
summary small { font-weight: 400; color: var(--muted); margin-left: 8px; }
.slider { display: grid; grid-template-columns: 1fr auto; align-items: baseline; padding: 0 0 7px; }
.slider input { grid-column: 1 / -1; width: 100%; }
.slider .value { font-variant-numeric: tabular-nums; color: var(--muted); }
.slider .value:empty::before { content: "\\200b"; } /* a line's height, so that nothing moves when a number comes */
button.wide { width: 100%; height: auto; padding: 9px; border: 1px solid var(--line); background: var(--press); margin: 4px 0; }
video { width: 100%; border-radius: 10px; transform: scaleX(-1); display: block; margin: 6px 0; }
.hint { color: var(--muted); font-size: 12px; margin: 4px 0; }
.hint:empty { display: none; }
.about { border-top: 1px solid var(--line); margin-top: 16px; padding-top: 12px; overflow-wrap: anywhere; }
@container (max-width: 640px) {
  .panel { position: absolute; inset: auto 0 0 0; width: 100%; height: 42%; border-radius: 16px 16px 0 0;
    box-shadow: 0 -4px 18px #0005; padding-bottom: 24px; }
  .stage { position: absolute; inset: 0; }
  :host([controls]:not([data-folded])) .stage { bottom: calc(42% - 14px); }
  .bar { bottom: 22px; gap: 0; }
  button { width: 44px; height: 44px; padding: 10px; }
  .slider { padding-bottom: 10px; }
  input[type=range] { height: 30px; }
}
@container (max-height: 420px) and (min-width: 641px) { .panel { width: 260px; } }
@media (prefers-reduced-motion: no-preference) { button { transition: background .15s; } }
`;

let sheet: CSSStyleSheet | undefined;

export function makeStyle(): CSSStyleSheet {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  return sheet;
}
