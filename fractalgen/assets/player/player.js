/* The page of one trace: one roll, two clocks, the process and the music.  No library; nothing is fetched. */
import { clamp, minutes, pitchName } from "./notes.js";
import { Music } from "./music.js";
import { Trace } from "./trace.js";
import { GUTTER, Roll } from "./roll.js";

const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const $ = (id) => document.getElementById(id);
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const piece = JSON.parse($("piece").textContent), scroller = $("scroller"), canvas = $("roll");

async function unpack() {
  if (!window.DecompressionStream) $("about").textContent = "This browser is too old: it needs one of 2023 or later.";
  const types = { float32: Float32Array, int32: Int32Array, int16: Int16Array, uint8: Uint8Array };
  const packed = Uint8Array.from(atob($("arrays").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  return Object.fromEntries(piece.arrays.map(([name, type, at, count]) => [name, new types[type](bytes, at, count)]));
}

const trace = new Trace(piece, await unpack());
const music = new Music(trace.notes, trace.clock, () => JSON.parse($("samples").textContent), refresh);
const roll = new Roll(trace, scroller, music);
const state = { playing: false, speed: 1 };
let pending = 0, before = 0, exact = 0; // frame asked for; time of the last one; position between two positions

function animate() {
  if (!pending) pending = requestAnimationFrame(frame);
}

function frame(now) {
  pending = 0;
  const elapsed = Math.min(0.1, (now - before) / 1000);
  before = now;
  if (state.playing) advance(elapsed);
  if (music.playing) {
    showTime();
    roll.reveal(trace.stepAt(music.heard));
  }
  roll.draw();
  if (state.playing || music.playing) animate();
}

/** At speed 1 a second of composing shows at least one step, and the whole process takes at most 14 seconds. */
function advance(elapsed) {
  const whole = trace.length(), { levels } = trace;
  const normal = trace.view === "hierarchical" ? whole / 12 : levels * Math.max(1, trace.steps / 14);
  exact = Math.min(whole, exact + elapsed * normal * state.speed);
  const grain = calm.matches && trace.view !== "hierarchical" ? levels : 1; // less flicker for those who ask for it
  const position = exact >= whole ? whole : Math.floor(exact / grain) * grain;
  if (position !== trace.position) goTo(position);
  state.playing = exact < whole;
  refresh();
}

function goTo(position) {
  trace.goTo(position);
  const follows = piece.follow && trace.view !== "hierarchical";
  const patch = follows && trace.patches.find(({ step }) => step === trace.begun - 1);
  if (patch && !music.playing) roll.reveal(patch.column, trace.column);
}

/** Another position of the process, by default the present one, in this view or another. */
function show({ view = trace.view, position, playing = false }) {
  const share = trace.length() ? trace.position / trace.length() : 1;
  if (view !== trace.view) {
    trace.view = view;
    position ??= Math.round(share * trace.length());
  }
  goTo((exact = position ?? trace.position));
  state.playing = playing;
  refresh();
}

function play(on = !state.playing) {
  const over = on && trace.position >= trace.length();
  before = performance.now();
  show({ position: over ? 0 : trace.position, playing: on && trace.length() > 0 });
}

/** One step of the process on or back; of the hierarchical view, one tick. */
function move(by) {
  const unit = trace.view === "hierarchical" ? 1 : trace.levels;
  const from = by > 0 ? Math.floor(trace.position / unit) : Math.ceil(trace.position / unit);
  show({ position: (from + by) * unit });
}

function speed(value) {
  state.speed = value;
  refresh();
}

const faster = (by) => speed(SPEEDS[clamp(SPEEDS.indexOf(state.speed) + by, 0, SPEEDS.length - 1)]);
const toLevel = (level) => show({ view: "hierarchical", position: trace.levelStarts[level + 1] });
const toView = (view) => (view !== "density" || trace.data.chances) && show({ view });
const listen = () => music.listen(!music.playing);
const seek = (step) => music.listen(music.playing, trace.clock[clamp(step, 0, trace.width)]);
const nextBar = () => seek(piece.bars.find((bar) => bar > trace.stepAt(music.heard) + 0.01) ?? trace.width);
const lastBar = () => seek(piece.bars.findLast((bar) => bar < trace.stepAt(music.heard) - 0.5) ?? 0);

function toggleRange() {
  roll.all = !roll.all;
  roll.measure();
  refresh();
}

function zoom(factor) {
  roll.zoom(factor);
  refresh();
}

function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  roll.restyle(root.dataset.theme);
}

function save() {
  const bytes = Uint8Array.from(atob(piece.midi), (letter) => letter.charCodeAt(0));
  const href = URL.createObjectURL(new Blob([bytes], { type: "audio/midi" }));
  const link = make("a", { href, download: `${piece.title.replace(/[^\p{L}\p{N} ._-]+/gu, "_")}.mid` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 10000);
}

// ---- controls say what there is ----

function button(id, on, name) {
  $(id).querySelector("use").setAttribute("href", on ? "#i-pause" : "#i-play");
  $(id).setAttribute("aria-label", `${on ? "Pause" : "Play"} the ${name}`);
}

function slide(id, value, most, text) {
  const slider = $(id);
  slider.max = most;
  slider.value = value;
  slider.disabled = !most;
  slider.setAttribute("aria-valuetext", text);
  slider.style.setProperty("--done", `${most ? (100 * value) / most : 100}%`);
  $(`${id}-text`).textContent = text;
}

const showTime = () => slide("time", music.heard, music.end, `${minutes(music.heard)} / ${minutes(music.end)}`);

function refresh() {
  const pressed = (element, on) => element.setAttribute("aria-pressed", on);
  for (const element of $("views").children) pressed(element, element.dataset.view === trace.view);
  const level = trace.position > 0 ? trace.levelAt(trace.position) : -1;
  for (const element of $("levels").children) pressed(element, +element.dataset.level === level);
  $("levels").hidden = trace.view !== "hierarchical";
  pressed($("range"), roll.all);
  $("out").disabled = roll.cell <= roll.fit;
  button("play", state.playing, "composing");
  button("listen", music.playing, "music");
  slide("step", trace.position, trace.length(), trace.label());
  $("says").textContent = trace.statistics();
  $("speed").value = state.speed;
  showTime();
  animate();
}

function inspect(event) {
  const cell = roll.cellAt(event.clientX, event.clientY), tip = $("tip");
  tip.hidden = !cell;
  if (!cell) return;
  tip.textContent = trace.tell(cell.pitch, cell.step);
  const { width, height } = tip.getBoundingClientRect(), above = event.pointerType === "touch" ? 28 : 14;
  tip.style.left = `${clamp(event.clientX + 14, 8, innerWidth - width - 8)}px`;
  tip.style.top = `${event.clientY - height - above < 8 ? event.clientY + above : event.clientY - height - above}px`;
}

// ---- what a person does ----

/** The wheel moves in time; with ctrl (or a pinch on a touch pad) it zooms. */
function turn(event) {
  if (event.ctrlKey) zoom(1.2 ** -Math.sign(event.deltaY));
  else if (!event.deltaX && roll.cell > roll.fit) scroller.scrollLeft += event.deltaY;
  else return;
  event.preventDefault();
}

const KEYS = {
  " ": () => play(), m: listen, "+": () => faster(1), "=": () => faster(1), "-": () => faster(-1),
  ArrowLeft: (event) => (event.shiftKey ? lastBar() : move(-1)),
  ArrowRight: (event) => (event.shiftKey ? nextBar() : move(1)),
  Home: () => show({ position: 0 }), End: () => show({ position: trace.length() }),
  p: () => toView("process"), h: () => toView("hierarchical"), d: () => toView("density"),
  "[": () => zoom(1 / 1.5), "]": () => zoom(1.5), a: toggleRange, t: toggleTheme, s: save,
  i: () => $("info-panel").showModal(), "?": () => $("help-panel").showModal(),
};
for (let level = 0; level < trace.levels; level++) KEYS[level + 1] = () => toLevel(level);

function typed(event) {
  const own = { BUTTON: /^ $/, SELECT: /./, INPUT: /Arrow|Home|End/ }[event.target.tagName]; // keys of the control
  const taken = event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]");
  if (taken || own?.test(event.key) || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key](event);
}

function connect() {
  const click = (id, action) => $(id).addEventListener("click", () => action());
  click("play", play);
  click("listen", listen);
  click("midi", save);
  click("theme", toggleTheme);
  click("range", toggleRange);
  click("in", () => zoom(1.5));
  click("out", () => zoom(1 / 1.5));
  for (const name of ["info", "help"]) click(name, () => $(`${name}-panel`).showModal());
  for (const dialog of document.querySelectorAll("dialog"))
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  $("views").addEventListener("click", (event) => event.target.dataset.view && toView(event.target.dataset.view));
  $("levels").addEventListener("click", (event) => event.target.dataset.level && toLevel(+event.target.dataset.level));
  $("step").addEventListener("input", (event) => show({ position: +event.target.value }));
  $("time").addEventListener("input", (event) => music.listen(music.playing, +event.target.value));
  $("speed").addEventListener("change", (event) => speed(+event.target.value));
  canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && inspect(event));
  canvas.addEventListener("pointerdown", inspect);
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && ($("tip").hidden = true));
  canvas.addEventListener("click", (event) => {
    const step = roll.rulerAt(event.clientX, event.clientY);
    if (step !== null) seek(step);
  });
  document.addEventListener("keydown", typed);
  // A button clicked with the mouse gives the space key back to the player; one reached by keyboard keeps it.
  document.addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
  scroller.addEventListener("wheel", turn, { passive: false });
  scroller.addEventListener("scroll", () => (($("tip").hidden = true), animate()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => {
    if (piece.theme === "light") return; // asked for
    document.documentElement.dataset.theme = event.matches ? "dark" : "light";
    roll.restyle(document.documentElement.dataset.theme);
  });
  new ResizeObserver(() => roll.measure()).observe(scroller);
}

function start() {
  const facts = Object.fromEntries(piece.facts), { finds, levels } = trace;
  const made = facts.Model === "none" ? [] : [facts.Model, `seed ${facts.Seed}`]; // nothing was composed
  $("about").textContent = [`${piece.bars.length} bars`, minutes(music.end), ...made].join(" · ");
  const row = ([name, value]) => {
    const line = make("div");
    line.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
    return line;
  };
  $("facts").append(...piece.facts.map(row));
  $("speed").append(...SPEEDS.map((value) => new Option(`${{ 0.25: "¼", 0.5: "½" }[value] ?? value}×`, value)));
  for (let level = 0; level < levels; level++) {
    const item = make("button", { textContent: `L${level}`, title: `Level ${level}: ${finds[level]} (${level + 1})` });
    item.dataset.level = level;
    $("levels").append(item);
  }
  $("views").querySelector("[data-view=density]").hidden = !trace.data.chances;
  canvas.setAttribute("aria-label", `Piano roll: ${facts.Notes}, ${facts.Length}`);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches && piece.theme !== "light";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  roll.restyle(document.documentElement.dataset.theme);
  roll.measure((scroller.clientWidth - GUTTER) / trace.width < 3 ? 5 : 0);
  connect();
  refresh();
}

start();

// For scripts and tests: positions are steps of the first level (process, density) or ticks (hierarchical).
window.fractalgen = {
  seek: (step) => show({ position: Math.round(trace.view === "hierarchical" ? step : step * trace.levels) }),
  view: toView,
  level: toLevel,
  state: () => ({
    ...state, view: trace.view, position: trace.position, length: trace.length(), label: trace.label(), all: roll.all,
    music: music.heard, sounding: music.playing,
  }),
  ticks: trace.ticks,
  stages: () => Array.from(trace.stage),
  values: () => Array.from(trace.stage, (_, i) => trace.shown(i)),
  cellAt: (x, y) => roll.cellAt(x, y),
  pitchName: (pitch) => pitchName(pitch, piece.flats),
  place: (pitch, step) => roll.place(pitch, step),
};
