
// ---- drawing: pitch up, time right, in whole pixels of the screen ----

const scroller = $("scroller"), canvas = $("roll"), pen = canvas.getContext("2d");
const LANE = 15, lanes = [...new Set(piece.lane.map(([, , , row]) => row))].sort(); // rows of sections and chords
const GUTTER = 40, NUMBERS = 20, RULER = NUMBERS + LANE * lanes.length; // the keyboard; the bar numbers and the lane
const box = { width: 0, height: 0, ratio: 1, low: 0, high: ROWS - 1, cell: 0, row: 0 };
let colours = {};

function restyle() {
  const theme = document.documentElement.dataset.theme;
  document.documentElement.style.setProperty("--accent", piece.ramps[theme][Math.round(0.45 * 63)]);
  const style = getComputedStyle(document.documentElement);
  const names = "paper roll row beat bar-line line ink soft accent white black key-line".split(" ");
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  Object.assign(colours, { ramp: piece.ramps[theme], tint: piece.tints[theme] });
  invalidate();
}

/** Fit the pitches into the height; in time keep the zoom, or fit the whole piece where its cells stay legible. */
function measure(zoom = box.cell <= box.fit ? 0 : box.cell) {
  const [low, high] = state.all || !notes.length ? [0, ROWS - 1] : [lowest - 2, highest + 2];
  const more = Math.max(0, 30 - (high - low + 1)); // a few notes alone are no thick bars
  const bottom = clamp(low - Math.floor(more / 2), 0, ROWS - 1), top = clamp(high + Math.ceil(more / 2), 0, ROWS - 1);
  const fit = (scroller.clientWidth - GUTTER) / WIDTH;
  const cell = zoom ? clamp(zoom, fit, Math.max(fit, 40)) : fit;
  Object.assign(box, { low: bottom, high: top, fit, cell, width: scroller.clientWidth, height: scroller.clientHeight });
  box.row = (box.height - RULER) / (top - bottom + 1);
  box.ratio = window.devicePixelRatio || 1;
  $("spacer").style.width = `${cell > fit ? GUTTER + WIDTH * cell : box.width}px`;
  canvas.style.width = `${box.width}px`;
  canvas.style.height = `${box.height}px`;
  canvas.width = px(box.width);
  canvas.height = px(box.height);
  $("out").disabled = cell <= fit;
  invalidate();
}

function zoom(factor) {
  const middle = (scroller.scrollLeft + (box.width - GUTTER) / 2) / box.cell;
  measure(box.cell * factor);
  scroller.scrollLeft = middle * box.cell - (box.width - GUTTER) / 2;
}

const px = (length) => Math.round(length * box.ratio);
const X = (step) => px(GUTTER + step * box.cell - scroller.scrollLeft);
const Y = (pitch) => px(RULER + (box.high + 1 - pitch) * box.row); // the lower edge; the upper one is Y(pitch + 1)
const fill = (colour, x0, y0, x1, y1) => ((pen.fillStyle = colour), pen.fillRect(x0, y0, x1 - x0, y1 - y0));

function draw() {
  const from = clamp(Math.floor(scroller.scrollLeft / box.cell), 0, WIDTH);
  const to = clamp(Math.ceil((scroller.scrollLeft + box.width - GUTTER) / box.cell), 0, WIDTH);
  drawPaper(from, to);
  drawStep();
  for (let pitch = box.low; pitch <= box.high; pitch++) drawRow(pitch, from, to);
  drawBoundary(from, to);
  const now = heard();
  if (now > 0 || music.out) fill(colours.ink, X(stepAt(now)) - px(0.75), 0, X(stepAt(now)) + px(0.75), canvas.height);
  drawRuler(from, to);
  drawKeys(music.out ? Math.floor(stepAt(now)) : -1);
}

function drawPaper(from, to) {
  const left = px(GUTTER), right = X(WIDTH), fine = Math.max(1, px(0.5));
  fill(colours.paper, 0, 0, canvas.width, canvas.height);
  fill(colours.roll, left, px(RULER), right, canvas.height);
  for (let pitch = box.low; pitch <= box.high; pitch++) {
    if (isBlack(pitch)) fill(colours.row, left, Y(pitch + 1), right, Y(pitch));
    if (pitch % 12 === 0) fill(colours.beat, left, Y(pitch) - fine, right, Y(pitch));
  }
  const lines = (steps, colour) => {
    for (const step of steps)
      if (step >= from && step <= to) fill(colour, X(step), px(RULER), X(step) + fine, canvas.height);
  };
  if (box.cell * piece.steps_per_quarter >= 16) lines(piece.beats, colours.beat);
  if (box.cell * piece.steps_per_quarter >= 2) lines(piece.bars, colours["bar-line"]);
}

/** The patches of the step that is being decided. */
function drawStep() {
  if (state.view === "hierarchical" || !state.position || state.position === length(state.view)) return;
  pen.strokeStyle = colours.accent;
  pen.lineWidth = Math.max(1, px(1));
  for (const { row, column, end, step } of patches) {
    if (step !== begun() - 1) continue;
    const x = X(column), y = Y(row + PATCH), width = X(end) - x, height = Y(row) - y;
    pen.globalAlpha = 0.08;
    fill(colours.accent, x, y, x + width, y + height);
    pen.globalAlpha = 0.7;
    pen.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  }
  pen.globalAlpha = 1;
}

function drawRow(pitch, from, to) {
  const base = pitch * WIDTH, top = Y(pitch + 1), gap = box.row >= 4 ? Math.max(1, px(0.5)) : 0;
  for (let step = from, end; step < to; step = end) {
    const i = base + step, loud = shown(i), final = stage[i] === LEVELS, known = data.known[i];
    end = step + 1;
    if (state.view === "density" && final) drawChance(step, top, Y(pitch), data.chances[i] / 255);
    if (!loud) continue;
    if (state.view === "density") {
      fill(colours.ink, X(step), Y(pitch) - Math.max(1, px(1.5)), X(end), Y(pitch));
      continue;
    }
    // A note goes on over its holds; a block, or a cell of one, to the edge of its patch.
    const size = piece.patch_sizes[stage[i]] ?? 1;
    const goesOn = (j) => (final ? data.tokens[j] === HOLD && data.known[j] === known : j % WIDTH !== corner(j % WIDTH, size));
    while (end < to && stage[base + end] === stage[i] && goesOn(base + end)) end++;
    const x0 = X(step), x1 = Math.max(X(end) - (box.cell >= 3 ? gap : 0), x0 + 1);
    const bottom = Y(pitch) - (pitch % size ? 0 : gap);
    const colour = known ? colours.tint : colours.ramp[Math.round(loud * 63)];
    const strength = known ? 0.8 : 1; // what was given stands back
    pen.globalAlpha = final ? 0.76 * strength ** 2 : 0.3 + (0.6 * stage[i]) / (LEVELS - 1);
    const struck = final && data.tokens[i] >= ONSET ? Math.max(Math.min(X(step + 1), x1), x0 + 1) : x0;
    fill(colour, struck, top, x1, bottom);
    pen.globalAlpha = strength; // the struck cell stands out: a note reads as one, a restrike shows
    fill(colour, x0, top, struck, bottom);
    pen.globalAlpha = 1;
  }
}

function drawChance(step, top, bottom, chance) {
  if (chance < 0.01) return;
  pen.globalAlpha = 0.15 + 0.85 * chance;
  fill(colours.ramp[Math.round(chance * 63)], X(step), top, X(step + 1), bottom);
  pen.globalAlpha = 1;
}

/** A fine line round what was composed, where the rest was given. */
function drawBoundary(from, to) {
  const fine = Math.max(1, px(1)), { known } = data;
  if (!known.includes(1)) return;
  pen.globalAlpha = 0.55;
  for (let pitch = box.low; pitch <= box.high; pitch++) {
    for (let step = from; step < to; step++) {
      const i = pitch * WIDTH + step;
      const right = X(step + 1), top = Y(pitch + 1);
      if (step + 1 < WIDTH && known[i] !== known[i + 1]) fill(colours.soft, right, top, right + fine, Y(pitch));
      if (pitch + 1 < ROWS && known[i] !== known[i + WIDTH]) fill(colours.soft, X(step), top, right, top + fine);
    }
  }
  pen.globalAlpha = 1;
}

function drawRuler(from, to) {
  fill(colours.paper, 0, 0, canvas.width, px(RULER) - 1);
  pen.fillStyle = colours.soft;
  pen.font = `${px(11)}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const wide = box.cell * (piece.bars.length > 1 ? piece.bars[1] : WIDTH);
  const every = [1, 2, 4, 8, 16, 32, 64].find((count) => count * wide >= 26) ?? 128;
  piece.bars.forEach((step, bar) => {
    if (bar % every === 0 && step >= from - 8 && step < to) pen.fillText(bar + 1, X(step) + px(3), px(NUMBERS / 2));
  });
  drawLane(from, to);
  if (!heard() && !music.out) return;
  const now = X(stepAt(heard()));
  pen.fillStyle = colours.ink;
  pen.beginPath(); // the handle of the music's playhead
  pen.moveTo(now - px(5), px(RULER - 9));
  pen.lineTo(now + px(5), px(RULER - 9));
  pen.lineTo(now, px(RULER - 1));
  pen.fill();
}

/** Sections as bands, chords as texts at the places where they begin; what has no room is left out. */
function drawLane(from, to) {
  const letters = [...new Set(piece.lane.filter(([, , , row]) => row === 0).map(([, , text]) => text))];
  for (const [start, stop, text, row] of piece.lane) {
    if (stop <= from || start >= to) continue;
    const x0 = X(start), x1 = X(stop) - 1, top = px(NUMBERS + LANE * lanes.indexOf(row)), bottom = top + px(LANE) - 1;
    if (row === 0) {
      pen.globalAlpha = letters.indexOf(text) % 2 ? 0.16 : 0.3;
      fill(colours.accent, x0, top, x1, bottom);
      pen.globalAlpha = 1;
    } else fill(colours["bar-line"], x0, top, x0 + 1, bottom);
    pen.fillStyle = row === 0 ? colours.ink : colours.soft;
    pen.font = `${px(11)}px system-ui, sans-serif`;
    const left = Math.max(x0, px(GUTTER)) + px(3);
    if (pen.measureText(text).width + left < x1 + px(2)) pen.fillText(text, left, top + px(LANE / 2));
  }
}

function drawKeys(step) {
  const right = px(GUTTER) - 1, short = px(GUTTER * 0.6), fine = Math.max(1, px(0.5));
  const sounds = (pitch) => step >= 0 && data.tokens[pitch * WIDTH + Math.min(step, WIDTH - 1)];
  fill(colours.paper, 0, 0, right, px(RULER));
  fill(colours.white, 0, px(RULER), right, canvas.height);
  for (let pitch = box.low; pitch <= box.high; pitch++) {
    const top = Y(pitch + 1), bottom = Y(pitch), middle = Math.round((top + bottom) / 2);
    if (sounds(pitch)) fill(colours.accent, 0, top, right, bottom);
    if (isBlack(pitch)) {
      if (!sounds(pitch)) fill(colours.black, 0, top, short, bottom);
      if (box.row >= 3) fill(colours["key-line"], short, middle, right, middle + fine);
    } else if (pitch % 12 === 0 || pitch % 12 === 5) fill(colours["key-line"], 0, bottom - fine, right, bottom);
    if (pitch % 12 || box.row * 12 < 14) continue;
    pen.fillStyle = "#4a4d52";
    pen.font = `${px(clamp(box.row * 1.3, 8, 11))}px system-ui, sans-serif`;
    pen.textAlign = "right";
    pen.fillText(pitchName(pitch), right - px(3), middle);
    pen.textAlign = "left";
  }
  fill(colours.line, right, px(RULER), right + 1, canvas.height);
}
