/* The roll of a trace: pitch up, time right, in whole pixels of the screen. */
import { HOLD, ONSET, clamp, isBlack, pitchName } from "./notes.js";

const LANE = 15, NUMBERS = 20; // pixels: a row of the lane, and the bar numbers
export const GUTTER = 40; // pixels: the keyboard

export class Roll {
  /** In `scroller`, which scrolls in time and holds a canvas and a spacer; the playhead is at the second `music.heard`. */
  constructor(trace, scroller, music) {
    Object.assign(this, { trace, scroller, music, all: false, cell: 0, fit: 0, colours: {} });
    this.canvas = scroller.querySelector("canvas");
    this.spacer = scroller.querySelector("#spacer");
    this.pen = this.canvas.getContext("2d");
    this.lanes = [...new Set(trace.piece.lane.map(([, , , row]) => row))].sort(); // rows of sections and chords
    this.ruler = NUMBERS + LANE * this.lanes.length;
  }

  // ---- places ----

  /** Fit the pitches into the height; in time keep the zoom, or fit the whole piece where its cells stay legible. */
  measure(zoom = this.cell <= this.fit ? 0 : this.cell) {
    const { trace, scroller, canvas } = this, top = trace.rows - 1;
    const [low, high] = this.all || !trace.notes.length ? [0, top] : [trace.lowest - 2, trace.highest + 2];
    const more = Math.max(0, 30 - (high - low + 1)); // a few notes alone are no thick bars
    this.low = clamp(low - Math.floor(more / 2), 0, top);
    this.high = clamp(high + Math.ceil(more / 2), 0, top);
    this.width = scroller.clientWidth;
    this.height = scroller.clientHeight;
    this.fit = (this.width - GUTTER) / trace.width;
    this.cell = zoom ? clamp(zoom, this.fit, Math.max(this.fit, 40)) : this.fit;
    this.row = (this.height - this.ruler) / (this.high - this.low + 1);
    this.ratio = window.devicePixelRatio || 1;
    this.spacer.style.width = `${this.cell > this.fit ? GUTTER + trace.width * this.cell : this.width}px`;
    canvas.style.width = `${this.width}px`;
    canvas.style.height = `${this.height}px`;
    canvas.width = this.px(this.width);
    canvas.height = this.px(this.height);
    this.invalidate();
  }

  zoom(factor) {
    const middle = (this.scroller.scrollLeft + (this.width - GUTTER) / 2) / this.cell;
    this.measure(this.cell * factor);
    this.scroller.scrollLeft = middle * this.cell - (this.width - GUTTER) / 2;
  }

  /** Turn the page when a time step is out of sight. */
  reveal(step, wide = 1) {
    const x = step * this.cell - this.scroller.scrollLeft, room = this.width - GUTTER;
    if (x < 0 || x + wide * this.cell > room) this.scroller.scrollLeft = step * this.cell - 0.06 * room;
  }

  px(length) {
    return Math.round(length * this.ratio);
  }

  x(step) {
    return this.px(GUTTER + step * this.cell - this.scroller.scrollLeft);
  }

  /** The lower edge of a pitch; the upper one is y(pitch + 1). */
  y(pitch) {
    return this.px(this.ruler + (this.high + 1 - pitch) * this.row);
  }

  /** The cell under a point of the window, null beside the roll. */
  cellAt(x, y) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const step = Math.floor((x - left - GUTTER + this.scroller.scrollLeft) / this.cell);
    const pitch = this.high - Math.floor((y - top - this.ruler) / this.row);
    const onRoll = x - left >= GUTTER && y - top >= this.ruler && step < this.trace.width && pitch >= this.low;
    return onRoll ? { pitch, step } : null;
  }

  /** The step under a point of the window that is on the bar numbers or the lane, null beside them. */
  rulerAt(x, y) {
    const { left, top } = this.canvas.getBoundingClientRect();
    if (y - top >= this.ruler || x - left < GUTTER) return null;
    return Math.floor((x - left - GUTTER + this.scroller.scrollLeft) / this.cell);
  }

  /** The point of the window in the middle of a cell. */
  place(pitch, step) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const [x, y] = [this.x(step) + this.x(step + 1), this.y(pitch) + this.y(pitch + 1)];
    return { x: left + x / 2 / this.ratio, y: top + y / 2 / this.ratio };
  }

  // ---- drawing ----

  /** Colours as the page's theme has them. */
  restyle(theme) {
    const { ramps, tints } = this.trace.piece, root = document.documentElement;
    root.style.setProperty("--accent", ramps[theme][Math.round(0.45 * 63)]);
    const style = getComputedStyle(root);
    const names = "paper roll row beat bar-line line ink soft accent white black key-line".split(" ");
    this.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    Object.assign(this.colours, { ramp: ramps[theme], tint: tints[theme] });
    this.invalidate();
  }

  invalidate() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.draw();
    });
  }

  fill(colour, x0, y0, x1, y1) {
    this.pen.fillStyle = colour;
    this.pen.fillRect(x0, y0, x1 - x0, y1 - y0);
  }

  draw() {
    const { trace, scroller, canvas, music, colours } = this;
    const from = clamp(Math.floor(scroller.scrollLeft / this.cell), 0, trace.width);
    const to = clamp(Math.ceil((scroller.scrollLeft + this.width - GUTTER) / this.cell), 0, trace.width);
    this.drawPaper(from, to);
    this.drawStep();
    for (let pitch = this.low; pitch <= this.high; pitch++) this.drawRow(pitch, from, to);
    this.drawBoundary(from, to);
    const now = trace.stepAt(music.heard), moves = music.heard > 0 || music.playing;
    if (moves) this.fill(colours.ink, this.x(now) - this.px(0.75), 0, this.x(now) + this.px(0.75), canvas.height);
    this.drawRuler(from, to);
    if (moves) this.drawHandle(this.x(now));
    this.drawKeys(music.playing ? Math.floor(now) : -1);
  }

  drawPaper(from, to) {
    const { colours, canvas, cell } = this, { piece, width } = this.trace;
    const left = this.px(GUTTER), right = this.x(width), top = this.px(this.ruler), fine = Math.max(1, this.px(0.5));
    this.fill(colours.paper, 0, 0, canvas.width, canvas.height);
    this.fill(colours.roll, left, top, right, canvas.height);
    for (let pitch = this.low; pitch <= this.high; pitch++) {
      if (isBlack(pitch)) this.fill(colours.row, left, this.y(pitch + 1), right, this.y(pitch));
      if (pitch % 12 === 0) this.fill(colours.beat, left, this.y(pitch) - fine, right, this.y(pitch));
    }
    const lines = (steps, colour) => {
      for (const step of steps)
        if (step >= from && step <= to) this.fill(colour, this.x(step), top, this.x(step) + fine, canvas.height);
    };
    if (cell * piece.steps_per_quarter >= 16) lines(piece.beats, colours.beat);
    if (cell * piece.steps_per_quarter >= 2) lines(piece.bars, colours["bar-line"]);
  }

  /** The patches of the step that is being decided. */
  drawStep() {
    const { trace, pen, colours } = this;
    if (trace.view === "hierarchical" || !trace.position || trace.position === trace.length()) return;
    pen.strokeStyle = colours.accent;
    pen.lineWidth = Math.max(1, this.px(1));
    for (const { row, column, end, step } of trace.patches) {
      if (step !== trace.begun - 1) continue;
      const x = this.x(column), y = this.y(row + trace.patch), width = this.x(end) - x, height = this.y(row) - y;
      pen.globalAlpha = 0.08;
      this.fill(colours.accent, x, y, x + width, y + height);
      pen.globalAlpha = 0.7;
      pen.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    }
    pen.globalAlpha = 1;
  }

  drawRow(pitch, from, to) {
    const { trace, colours, pen } = this, { data, stage, width, levels, piece } = trace;
    const base = pitch * width, top = this.y(pitch + 1), gap = this.row >= 4 ? Math.max(1, this.px(0.5)) : 0;
    for (let step = from, end; step < to; step = end) {
      const i = base + step, loud = trace.shown(i), final = stage[i] === levels, known = data.known[i];
      end = step + 1;
      if (trace.view === "density" && final) this.drawChance(step, top, this.y(pitch), data.chances[i] / 255);
      if (!loud) continue;
      if (trace.view === "density") {
        this.fill(colours.ink, this.x(step), this.y(pitch) - Math.max(1, this.px(1.5)), this.x(end), this.y(pitch));
        continue;
      }
      // A note goes on over its holds; a block, or a cell of one, to the edge of its patch.
      const high = piece.patch_sizes[stage[i]] ?? 1, wide = piece.patch_steps[stage[i]] ?? 1;
      const goesOn = (j) => (final
        ? data.tokens[j] === HOLD && data.known[j] === known
        : j % width !== trace.corner(j % width, wide));
      while (end < to && stage[base + end] === stage[i] && goesOn(base + end)) end++;
      const x0 = this.x(step), x1 = Math.max(this.x(end) - (this.cell >= 3 ? gap : 0), x0 + 1);
      const bottom = this.y(pitch) - (pitch % high ? 0 : gap);
      const colour = known ? colours.tint : colours.ramp[Math.round(loud * 63)];
      const strength = known ? 0.8 : 1; // what was given stands back
      pen.globalAlpha = final ? 0.76 * strength ** 2 : 0.3 + (0.6 * stage[i]) / (levels - 1);
      const struck = final && data.tokens[i] >= ONSET ? Math.max(Math.min(this.x(step + 1), x1), x0 + 1) : x0;
      this.fill(colour, struck, top, x1, bottom);
      pen.globalAlpha = strength; // the struck cell stands out: a note reads as one, a restrike shows
      this.fill(colour, x0, top, struck, bottom);
      pen.globalAlpha = 1;
    }
  }

  drawChance(step, top, bottom, chance) {
    if (chance < 0.01) return;
    this.pen.globalAlpha = 0.15 + 0.85 * chance;
    this.fill(this.colours.ramp[Math.round(chance * 63)], this.x(step), top, this.x(step + 1), bottom);
    this.pen.globalAlpha = 1;
  }

  /** A fine line round what was composed, where the rest was given. */
  drawBoundary(from, to) {
    const { pen, colours } = this, { width, rows } = this.trace, { known } = this.trace.data, fine = Math.max(1, this.px(1));
    if (!known.includes(1)) return;
    pen.globalAlpha = 0.55;
    for (let pitch = this.low; pitch <= this.high; pitch++) {
      for (let step = from; step < to; step++) {
        const i = pitch * width + step, right = this.x(step + 1), top = this.y(pitch + 1);
        if (step + 1 < width && known[i] !== known[i + 1]) this.fill(colours.soft, right, top, right + fine, this.y(pitch));
        if (pitch + 1 < rows && known[i] !== known[i + width]) this.fill(colours.soft, this.x(step), top, right, top + fine);
      }
    }
    pen.globalAlpha = 1;
  }

  drawRuler(from, to) {
    const { pen, colours, canvas } = this, { bars } = this.trace.piece;
    this.fill(colours.paper, 0, 0, canvas.width, this.px(this.ruler) - 1);
    pen.fillStyle = colours.soft;
    pen.font = `${this.px(11)}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    const wide = this.cell * (bars.length > 1 ? bars[1] : this.trace.width);
    const every = [1, 2, 4, 8, 16, 32, 64].find((count) => count * wide >= 26) ?? 128;
    bars.forEach((step, bar) => {
      if (bar % every === 0 && step >= from - 8 && step < to)
        pen.fillText(bar + 1, this.x(step) + this.px(3), this.px(NUMBERS / 2));
    });
    this.drawLane(from, to);
  }

  /** The handle of the music's playhead. */
  drawHandle(x) {
    const { pen, ruler } = this;
    pen.fillStyle = this.colours.ink;
    pen.beginPath();
    pen.moveTo(x - this.px(5), this.px(ruler - 9));
    pen.lineTo(x + this.px(5), this.px(ruler - 9));
    pen.lineTo(x, this.px(ruler - 1));
    pen.fill();
  }

  /** Sections as bands, chords as texts at the places where they begin; what has no room is left out. */
  drawLane(from, to) {
    const { pen, colours } = this, { lane } = this.trace.piece;
    const letters = [...new Set(lane.filter(([, , , row]) => row === 0).map(([, , text]) => text))];
    for (const [start, stop, text, row] of lane) {
      if (stop <= from || start >= to) continue;
      const top = this.px(NUMBERS + LANE * this.lanes.indexOf(row)), bottom = top + this.px(LANE) - 1;
      const x0 = this.x(start), x1 = this.x(stop) - 1;
      if (row === 0) {
        pen.globalAlpha = letters.indexOf(text) % 2 ? 0.16 : 0.3;
        this.fill(colours.accent, x0, top, x1, bottom);
        pen.globalAlpha = 1;
      } else this.fill(colours["bar-line"], x0, top, x0 + 1, bottom);
      pen.fillStyle = row === 0 ? colours.ink : colours.soft;
      pen.font = `${this.px(11)}px system-ui, sans-serif`;
      const left = Math.max(x0, this.px(GUTTER)) + this.px(3);
      if (pen.measureText(text).width + left < x1 + this.px(2)) pen.fillText(text, left, top + this.px(LANE / 2));
    }
  }

  drawKeys(step) {
    const { pen, colours, canvas } = this, { data, width, piece } = this.trace, top = this.px(this.ruler);
    const right = this.px(GUTTER) - 1, short = this.px(GUTTER * 0.6), fine = Math.max(1, this.px(0.5));
    const sounds = (pitch) => step >= 0 && data.tokens[pitch * width + Math.min(step, width - 1)];
    this.fill(colours.paper, 0, 0, right, top);
    this.fill(colours.white, 0, top, right, canvas.height);
    for (let pitch = this.low; pitch <= this.high; pitch++) {
      const upper = this.y(pitch + 1), lower = this.y(pitch), middle = Math.round((upper + lower) / 2);
      if (sounds(pitch)) this.fill(colours.accent, 0, upper, right, lower);
      if (isBlack(pitch)) {
        if (!sounds(pitch)) this.fill(colours.black, 0, upper, short, lower);
        if (this.row >= 3) this.fill(colours["key-line"], short, middle, right, middle + fine);
      } else if (pitch % 12 === 0 || pitch % 12 === 5) this.fill(colours["key-line"], 0, lower - fine, right, lower);
      if (pitch % 12 || this.row * 12 < 14) continue;
      pen.fillStyle = "#4a4d52";
      pen.font = `${this.px(clamp(this.row * 1.3, 8, 11))}px system-ui, sans-serif`;
      pen.textAlign = "right";
      pen.fillText(pitchName(pitch, piece.flats), right - this.px(3), middle);
      pen.textAlign = "left";
    }
    this.fill(colours.line, right, top, right + 1, canvas.height);
  }
}
