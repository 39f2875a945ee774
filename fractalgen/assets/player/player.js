
// ---- controls ----

const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const seconds = (time) => `${Math.floor(time / 60)}:${String(Math.floor(time % 60)).padStart(2, "0")}`;
let pending = 0, before = 0, exact = 0; // frame asked for; time of the last one; position between two positions

function invalidate() {
  if (!pending) pending = requestAnimationFrame(frame);
}

function frame(now) {
  pending = 0;
  const elapsed = Math.min(0.1, (now - before) / 1000);
  before = now;
  if (state.playing) advance(elapsed);
  if (music.out) {
    showTime();
    reveal(stepAt(heard()));
  }
  draw();
  if (state.playing || music.out) invalidate();
}

/** At speed 1 a second of composing shows at least one step, and the whole process takes at most 14 seconds. */
function advance(elapsed) {
  const whole = length(state.view);
  const normal = state.view === "hierarchical" ? whole / 12 : LEVELS * Math.max(1, STEPS / 14);
  exact = Math.min(whole, exact + elapsed * normal * state.speed);
  const grain = calm.matches && state.view !== "hierarchical" ? LEVELS : 1; // less flicker for those who ask for it
  const position = exact >= whole ? whole : Math.floor(exact / grain) * grain;
  if (position !== state.position) goTo(position);
  state.playing = exact < whole;
  refresh();
}

/** Turn the page when a time step is out of sight. */
function reveal(step, wide = 1) {
  const x = step * box.cell - scroller.scrollLeft, room = box.width - GUTTER;
  if (x < 0 || x + wide * box.cell > room) scroller.scrollLeft = step * box.cell - 0.06 * room;
}

function goTo(position) {
  state.position = clamp(position, 0, length(state.view));
  arrange();
  const patch = piece.follow && state.view !== "hierarchical" && patches.find(({ step }) => step === begun() - 1);
  if (patch && !music.out) reveal(patch.column, PATCH);
}

function set(changes) {
  const share = length(state.view) ? state.position / length(state.view) : 1;
  Object.assign(state, changes);
  if (changes.view && changes.position === undefined) state.position = Math.round(share * length(state.view));
  goTo((exact = state.position));
  refresh();
}

function play(on = !state.playing) {
  if (on && state.position >= length(state.view)) set({ position: 0 });
  before = performance.now();
  set({ playing: on && length(state.view) > 0 });
}

/** One step of the process on or back; of the hierarchical view, one tick. */
function move(by) {
  const unit = state.view === "hierarchical" ? 1 : LEVELS;
  const from = by > 0 ? Math.floor(state.position / unit) : Math.ceil(state.position / unit);
  set({ position: (from + by) * unit, playing: false });
}

const toLevel = (level) => set({ view: "hierarchical", position: levelStarts[level + 1], playing: false });
const faster = (by) => set({ speed: SPEEDS[clamp(SPEEDS.indexOf(state.speed) + by, 0, SPEEDS.length - 1)] });

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

const showTime = () => slide("time", heard(), END, `${seconds(heard())} / ${seconds(END)}`);

/** Controls say what the state is. */
function refresh() {
  const pressed = (element, on) => element.setAttribute("aria-pressed", on);
  for (const element of $("views").children) pressed(element, element.dataset.view === state.view);
  const level = state.position > 0 ? levelAt(state.position) : -1;
  for (const element of $("levels").children) pressed(element, +element.dataset.level === level);
  $("levels").hidden = state.view !== "hierarchical";
  pressed($("range"), state.all);
  button("play", state.playing, "composing");
  button("listen", Boolean(music.out), "music");
  slide("step", state.position, length(state.view), label());
  $("says").textContent = statistics();
  $("speed").value = state.speed;
  showTime();
  invalidate();
}

function inspect(event) {
  const cell = cellAt(event.clientX, event.clientY), tip = $("tip");
  tip.hidden = !cell;
  if (!cell) return;
  tip.textContent = tell(cell.pitch, cell.step);
  const { width, height } = tip.getBoundingClientRect(), above = event.pointerType === "touch" ? 28 : 14;
  tip.style.left = `${clamp(event.clientX + 14, 8, innerWidth - width - 8)}px`;
  tip.style.top = `${event.clientY - height - above < 8 ? event.clientY + above : event.clientY - height - above}px`;
}

/** The wheel moves in time; with ctrl (or a pinch on a touch pad) it zooms. */
function turn(event) {
  if (event.ctrlKey) zoom(1.2 ** -Math.sign(event.deltaY));
  else if (!event.deltaX && box.cell > box.fit) scroller.scrollLeft += event.deltaY;
  else return;
  event.preventDefault();
}

/** The cell under a point of the window, null beside the roll. */
function cellAt(x, y) {
  const { left, top } = canvas.getBoundingClientRect();
  const step = Math.floor((x - left - GUTTER + scroller.scrollLeft) / box.cell);
  const pitch = box.high - Math.floor((y - top - RULER) / box.row);
  const onRoll = x - left >= GUTTER && y - top >= RULER && step < WIDTH && pitch >= box.low;
  return onRoll ? { pitch, step } : null;
}

function save() {
  const bytes = Uint8Array.from(atob(piece.midi), (letter) => letter.charCodeAt(0));
  const href = URL.createObjectURL(new Blob([bytes], { type: "audio/midi" }));
  const link = make("a", { href, download: `${piece.title.replace(/[^\p{L}\p{N} ._-]+/gu, "_")}.mid` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 10000);
}

function toggleTheme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  restyle();
}

const toggleRange = () => (set({ all: !state.all }), measure());
const seek = (step) => listen(Boolean(music.out), clock[clamp(step, 0, WIDTH)]);
const nextBar = () => seek(piece.bars.find((bar) => bar > stepAt(heard()) + 0.01) ?? WIDTH);
const lastBar = () => seek(piece.bars.findLast((bar) => bar < stepAt(heard()) - 0.5) ?? 0);
const toView = (view) => (view !== "density" || data.chances) && set({ view, playing: false });

const KEYS = {
  " ": () => play(), m: () => listen(!music.out), "+": () => faster(1), "=": () => faster(1), "-": () => faster(-1),
  ArrowLeft: (event) => (event.shiftKey ? lastBar() : move(-1)),
  ArrowRight: (event) => (event.shiftKey ? nextBar() : move(1)),
  Home: () => set({ position: 0 }), End: () => set({ position: length(state.view) }),
  p: () => toView("process"), h: () => toView("hierarchical"), d: () => toView("density"),
  "[": () => zoom(1 / 1.5), "]": () => zoom(1.5), a: toggleRange, t: toggleTheme, s: save,
  i: () => $("info-panel").showModal(), "?": () => $("help-panel").showModal(),
};
for (let level = 0; level < LEVELS; level++) KEYS[level + 1] = () => toLevel(level);

document.addEventListener("keydown", (event) => {
  const own = { BUTTON: /^ $/, SELECT: /./, INPUT: /Arrow|Home|End/ }[event.target.tagName]; // keys of the control
  const taken = event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]");
  if (taken || own?.test(event.key) || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key](event);
});

function connect() {
  const click = (id, action) => $(id).addEventListener("click", () => action());
  click("play", play);
  click("listen", () => listen(!music.out));
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
  $("step").addEventListener("input", (event) => set({ position: +event.target.value, playing: false }));
  $("time").addEventListener("input", (event) => listen(Boolean(music.out), +event.target.value));
  $("speed").addEventListener("change", (event) => set({ speed: +event.target.value }));
  canvas.addEventListener("pointermove", (event) => event.pointerType === "mouse" && inspect(event));
  canvas.addEventListener("pointerdown", inspect);
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && ($("tip").hidden = true));
  canvas.addEventListener("click", (event) => {
    const { left, top } = canvas.getBoundingClientRect(), x = event.clientX - left - GUTTER;
    if (event.clientY - top < RULER && x >= 0) seek(Math.floor((x + scroller.scrollLeft) / box.cell));
  });
  // A button clicked with the mouse gives the space key back to the player; one reached by keyboard keeps it.
  document.addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
  scroller.addEventListener("wheel", turn, { passive: false });
  scroller.addEventListener("scroll", () => (($("tip").hidden = true), invalidate()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => {
    if (piece.theme === "light") return; // asked for
    document.documentElement.dataset.theme = event.matches ? "dark" : "light";
    restyle();
  });
  new ResizeObserver(() => measure()).observe(scroller);
}

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

function start() {
  const facts = Object.fromEntries(piece.facts);
  $("about").textContent = [`${piece.bars.length} bars`, seconds(END), facts.Model, `seed ${facts.Seed}`].join(" · ");
  const row = ([name, value]) => {
    const line = make("div");
    line.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
    return line;
  };
  $("facts").append(...piece.facts.map(row));
  $("speed").append(...SPEEDS.map((speed) => new Option(`${{ 0.25: "¼", 0.5: "½" }[speed] ?? speed}×`, speed)));
  for (let level = 0; level < LEVELS; level++) {
    const item = make("button", { textContent: `L${level}`, title: `Level ${level}: ${finds[level]} (${level + 1})` });
    item.dataset.level = level;
    $("levels").append(item);
  }
  $("views").querySelector("[data-view=density]").hidden = !data.chances;
  canvas.setAttribute("aria-label", `Piano roll: ${facts.Notes}, ${facts.Length}`);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches && piece.theme !== "light";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  box.width = scroller.clientWidth;
  const fit = (box.width - GUTTER) / WIDTH;
  arrange();
  restyle();
  measure(fit < 3 ? 5 : 0);
  connect();
  refresh();
}

start();

// For scripts and tests: positions are steps of the first level (process, density) or ticks (hierarchical).
window.fractalgen = {
  seek: (step) => set({ position: Math.round(state.view === "hierarchical" ? step : step * LEVELS), playing: false }),
  view: toView,
  level: toLevel,
  state: () => ({ ...state, length: length(state.view), label: label(), music: heard(), sounding: Boolean(music.out) }),
  ticks,
  stages: () => Array.from(stage),
  values: () => Array.from(stage, (_, i) => shown(i)),
  cellAt,
  pitchName,
  place: (pitch, step) => {
    const { left, top } = canvas.getBoundingClientRect();
    return { x: left + (X(step) + X(step + 1)) / 2 / box.ratio, y: top + (Y(pitch) + Y(pitch + 1)) / 2 / box.ratio };
  },
};
