
// How a piece came to be, and its music: one canvas, two clocks.  No library; nothing is fetched.
const $ = (id) => document.getElementById(id);
const piece = JSON.parse($("piece").textContent);
const [ROWS, WIDTH] = piece.shape;
const SIZE = ROWS * WIDTH;
const LEVELS = piece.patch_sizes.length;
const HOLD = 1, ONSET = 2; // tokens: 0 silence, 1 hold, 2 + v onset with velocity bin v
const NAMES = piece.flats
  ? ["C", "D♭", "D", "E♭", "E", "F", "G♭", "G", "A♭", "A", "B♭", "B"]
  : ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const pitchName = (pitch) => NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);
const isBlack = (pitch) => NAMES[pitch % 12].length > 1;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

// ---- data: the trace, and what follows from it ----

async function unpack() {
  if (!window.DecompressionStream) $("about").textContent = "This browser is too old: it needs one of 2023 or later.";
  const types = { float32: Float32Array, int32: Int32Array, int16: Int16Array, uint8: Uint8Array };
  const packed = Uint8Array.from(atob($("arrays").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  return Object.fromEntries(piece.arrays.map(([name, type, at, count]) => [name, new types[type](bytes, at, count)]));
}

const data = await unpack();
const STEPS = data.seconds.length; // steps of the first level
const plane = (level) => data.decided.subarray(level * SIZE, (level + 1) * SIZE);
const localSteps = piece.patch_sizes.map((_, level) => plane(level).reduce((most, at) => Math.max(most, at), 0) + 1);

/** Loudness 0 to 1 of every cell; a hold sounds as loud as its note, one from before the excerpt half loud. */
function loudness() {
  const loud = new Float32Array(SIZE);
  for (let i = 0, struck = 0; i < SIZE; i++) {
    const token = data.tokens[i];
    if (token >= ONSET) struck = Math.floor(((2 * (token - ONSET) + 1) * 64) / piece.velocity_bins) / 127;
    else if (token !== HOLD || i % WIDTH === 0) struck = 0.5;
    loud[i] = token ? struck : 0;
  }
  return loud;
}

// Columns of first-level patches begin where bars do, which may be shorter than a patch.
const columnOf = new Int32Array(WIDTH);
for (let step = 0, column = 0; step < WIDTH; step++) {
  while (piece.columns[column + 1] <= step) column++;
  columnOf[step] = piece.columns[column];
}
/** The first step of the block that a step is in. */
const corner = (step, size) => columnOf[step] + Math.floor((step - columnOf[step]) / size) * size;

/** Every size x size block at the mean of its sounding cells. */
function blockMeans(values, size) {
  const sums = new Float64Array(WIDTH * (ROWS / size)), counts = sums.slice();
  const block = (i) => Math.floor(i / WIDTH / size) * WIDTH + corner(i % WIDTH, size);
  values.forEach((value, i) => value && ((sums[block(i)] += value), counts[block(i)]++));
  return values.map((_, i) => sums[block(i)] / Math.max(counts[block(i)], 1));
}

const velocity = loudness();
const details = []; // what a level knows of the piece when it has finished: blocks, then cells, then velocities
for (let level = 0; level < LEVELS; level++) {
  if (level < LEVELS - 2) details.push(blockMeans(velocity, piece.patch_sizes[level + 1]));
  else if (level === LEVELS - 1 || level === 0) details.push(velocity);
  else details.push(details[level - 1].map((mean, i) => (data.tokens[i] ? mean : 0)));
}

const notes = [];
for (let i = 0; i < SIZE; i++) {
  const orphan = data.tokens[i] === HOLD && i % WIDTH === 0;
  if (data.tokens[i] < ONSET && !orphan) continue;
  let end = i + 1;
  while (end % WIDTH && data.tokens[end] === HOLD) end++;
  notes.push({ pitch: Math.floor(i / WIDTH), start: i % WIDTH, end: (i % WIDTH) + end - i, velocity: velocity[i] });
}
const lowest = notes[0]?.pitch, highest = notes.at(-1)?.pitch; // they were found from the lowest pitch up
notes.sort((one, other) => one.start - other.start || one.pitch - other.pitch);

const clock = new Float64Array(WIDTH + 1); // seconds of music at which each step begins
for (let step = 0; step < WIDTH; step++) {
  const [, tempo] = piece.tempos.findLast(([start]) => start <= step);
  clock[step + 1] = clock[step] + 60 / (tempo * piece.steps_per_quarter);
}
const END = clock[WIDTH];

function stepAt(seconds) {
  const step = clamp(clock.findLastIndex((start) => start <= seconds), 0, WIDTH - 1);
  return clamp(step + (seconds - clock[step]) / (clock[step + 1] - clock[step]), 0, WIDTH);
}

// Of every first-level patch the step that decided it, and its corner.
const PATCH = piece.patch_sizes[1];
const patches = [];
for (let row = 0; row < ROWS; row += PATCH) {
  piece.columns.forEach((column, number) => {
    const end = Math.min(piece.columns[number + 1] ?? WIDTH, WIDTH);
    let step = -1; // known cells say nothing, so every cell is asked
    for (let pitch = row; pitch < row + PATCH; pitch++)
      for (let at = column; at < end; at++) step = Math.max(step, data.decided[pitch * WIDTH + at]);
    patches.push({ row, column, end, step });
  });
}

// ---- the process: which level has reached each cell ----

// Process: every step of the first level takes one position for each level.  Hierarchical: each level its ticks.
const ticks = localSteps.map((count) => Math.min(64, 8 * count));
const levelStarts = ticks.reduce((starts, count) => [...starts, starts.at(-1) + count], [0]);
const length = (view) => (view === "hierarchical" ? levelStarts[LEVELS] : STEPS * LEVELS);
const levelAt = (position) => clamp(levelStarts.findIndex((start) => position <= start) - 1, 0, LEVELS - 1);

const state = { view: piece.view, position: length(piece.view), playing: false, speed: 1, all: false };
const stage = new Uint8Array(SIZE); // 0: nothing yet; l: levels below l have decided; LEVELS: the cell is final
const shown = (i) => (stage[i] ? details[stage[i] - 1][i] : 0);

function arrange() {
  const { known, decided } = data;
  if (state.view === "hierarchical") {
    const level = levelAt(state.position), local = plane(level);
    const reached = ((state.position - levelStarts[level]) * localSteps[level]) / ticks[level];
    for (let i = 0; i < SIZE; i++) stage[i] = known[i] ? LEVELS : level + (local[i] >= 0 && local[i] < reached);
  } else {
    const step = Math.floor(state.position / LEVELS), phase = state.position % LEVELS;
    for (let i = 0; i < SIZE; i++) {
      const at = decided[i];
      stage[i] = known[i] || (at >= 0 && at < step) ? LEVELS : at === step ? phase : 0;
    }
  }
}

/** Steps of the first level that have begun. */
const begun = () => Math.ceil(state.position / LEVELS);

function label() {
  if (!length(state.view)) return "Nothing composed";
  if (state.position === 0) return state.view === "hierarchical" && piece.lane.length ? "Plan" : "Init";
  if (state.view === "hierarchical") {
    const level = levelAt(state.position), count = piece.num_iter_list[level];
    const done = (state.position - levelStarts[level]) / ticks[level];
    return `L${level} step ${Math.max(1, Math.ceil(done * count))}/${count}`;
  }
  const step = begun(), phase = state.position % LEVELS;
  const [iteration, batch] = data.steps.subarray(2 * step - 2);
  const alone = piece.generators[0] === "ar";
  const name = alone ? `AR L0 patch ${step}/${STEPS}` : `Iter ${iteration + 1} batch ${batch + 1}`;
  return phase ? `${name} · L${phase - 1}` : name;
}

// What each level decides, in words.
const finds = piece.patch_sizes.map((_, level) => {
  const side = piece.patch_sizes[level + 1];
  if (level === LEVELS - 1) return "velocities";
  return side > 1 ? `${side}×${side} patches at their mean velocity` : "cells at their patch's velocity";
});

function statistics() {
  const level = levelAt(state.position);
  if (state.view === "hierarchical" && level < LEVELS - 1) return finds[level];
  let count = 0, low = ROWS, high = -1;
  for (const { pitch, start } of notes) {
    if (stage[pitch * WIDTH + start] < LEVELS) continue;
    count++;
    low = Math.min(low, pitch);
    high = Math.max(high, pitch);
  }
  const parts = [`${count} ${count === 1 ? "note" : "notes"}`];
  if (count) parts.push(`${pitchName(low)} to ${pitchName(high)}`);
  if (state.view !== "hierarchical" && begun()) parts.push(`${data.seconds[begun() - 1].toFixed(1)} s`);
  return parts.join(" · ");
}

/** What there is to know about a cell: name, place in time, loudness, who decided it and when. */
function tell(pitch, step) {
  const i = pitch * WIDTH + step, token = data.tokens[i];
  const bar = piece.bars.findLastIndex((start) => start <= step);
  const beats = piece.beats.filter((beat) => beat >= piece.bars[bar] && beat <= step);
  let what = "silence", long = "";
  if (stage[i] === LEVELS && token) {
    const note = notes.find((one) => one.pitch === pitch && one.start <= step && step < one.end);
    what = `velocity ${Math.round(velocity[i] * 127)}`;
    const steps = note ? note.end - note.start : 1;
    long = `${token === HOLD ? "held" : "struck"}, ${steps} ${steps === 1 ? "step" : "steps"} long`;
  } else if (shown(i)) what = `mean velocity ${Math.round(shown(i) * 127)} at L${stage[i] - 1}`;
  else if (!stage[i]) what = "not decided yet";
  const time = `bar ${bar + 1} : beat ${beats.length} : step ${step - beats.at(-1) + 1}`;
  const lines = [`${pitchName(pitch)} · ${what}`, time];
  if (long) lines.push(long);
  if (data.known[i]) return [...lines, "given, not composed"].join("\n");
  const path = piece.patch_sizes.map((_, level) => data.decided[level * SIZE + i]);
  const level = stage[i] ? path.findLastIndex((at) => at >= 0) : 0; // no hint at what is yet to come
  const asked = path.slice(0, Math.min(level, LEVELS - 2) + 1); // a cell's velocity takes no steps of its own
  const places = asked.map((at, l) => `${at + 1}/${l ? localSteps[l] : STEPS}`);
  const when = stage[i] ? "decided" : "begins";
  lines.push(`${when} at L${level} (${piece.generators[level].toUpperCase()}), step ${places.join(" › ")}`);
  if (data.chances && stage[i]) lines.push(`chance to sound ${Math.round(data.chances[i] / 2.55)} %`);
  return lines.join("\n");
}
