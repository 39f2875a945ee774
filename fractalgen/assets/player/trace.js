/* How a piece came to be: what was decided at each moment of the process, and what follows from it. */
import { HOLD, ONSET, clamp, pitchName } from "./notes.js";

export class Trace {
  /** `piece`: shape, patch sizes, bars and so on, as `page.py` writes them; `data`: its arrays by name. */
  constructor(piece, data) {
    const [rows, width] = piece.shape, levels = piece.patch_sizes.length;
    const size = rows * width, steps = data.seconds.length; // steps: of the first level
    Object.assign(this, { piece, data, rows, width, size, levels, steps, view: piece.view, position: 0 });
    this.localSteps = piece.patch_sizes.map((_, level) => this.plane(level).reduce((most, at) => Math.max(most, at), 0) + 1);
    this.columnOf = this.#columns();
    this.velocity = this.#loudness();
    this.details = this.#details();
    this.notes = this.#notes();
    this.lowest = this.notes.reduce((least, { pitch }) => Math.min(least, pitch), rows - 1);
    this.highest = this.notes.reduce((most, { pitch }) => Math.max(most, pitch), 0);
    this.clock = this.#seconds();
    this.patch = piece.patch_sizes[1];
    this.column = piece.patch_steps[1];
    this.patches = this.#patches();
    // Process: every step of the first level takes one position for each level.  Hierarchical: each level its ticks.
    this.ticks = this.localSteps.map((count) => Math.min(64, 8 * count));
    this.levelStarts = this.ticks.reduce((starts, count) => [...starts, starts.at(-1) + count], [0]);
    this.finds = piece.patch_sizes.map((_, level) => { // what each level decides, in words
      const [high, wide] = [piece.patch_sizes[level + 1], piece.patch_steps[level + 1]];
      if (level === levels - 1) return "velocities";
      return high * wide > 1 ? `${high}×${wide} patches at their mean velocity` : "cells at their patch's velocity";
    });
    this.stage = new Uint8Array(size); // 0: nothing yet; l: levels below l have decided; levels: the cell is final
    this.goTo(this.length());
  }

  // ---- the piece ----

  /** When a level decided each cell. */
  plane(level) {
    return this.data.decided.subarray(level * this.size, (level + 1) * this.size);
  }

  /** Columns of first-level patches begin where bars do, which may be shorter than a patch. */
  #columns() {
    const found = new Int32Array(this.width), { columns } = this.piece;
    for (let step = 0, column = 0; step < this.width; step++) {
      while (columns[column + 1] <= step) column++;
      found[step] = columns[column];
    }
    return found;
  }

  /** The first step of the block of so many steps that a step is in. */
  corner(step, wide) {
    return this.columnOf[step] + Math.floor((step - this.columnOf[step]) / wide) * wide;
  }

  /** Loudness 0 to 1 of every cell; a hold sounds as loud as its note, one from before the excerpt half loud. */
  #loudness() {
    const loud = new Float32Array(this.size);
    for (let i = 0, struck = 0; i < this.size; i++) {
      const token = this.data.tokens[i];
      if (token >= ONSET) struck = Math.floor(((2 * (token - ONSET) + 1) * 64) / this.piece.velocity_bins) / 127;
      else if (token !== HOLD || i % this.width === 0) struck = 0.5;
      loud[i] = token ? struck : 0;
    }
    return loud;
  }

  /** Every block of so many pitches and steps at the mean of its sounding cells. */
  #blockMeans(values, high, wide) {
    const { width } = this, sums = new Float64Array(width * (this.rows / high)), counts = sums.slice();
    const block = (i) => Math.floor(i / width / high) * width + this.corner(i % width, wide);
    values.forEach((value, i) => value && ((sums[block(i)] += value), counts[block(i)]++));
    return values.map((_, i) => sums[block(i)] / Math.max(counts[block(i)], 1));
  }

  /** What a level knows of the piece when it has finished: blocks, then cells, then velocities. */
  #details() {
    const { levels, velocity, piece, data } = this, found = [];
    for (let level = 0; level < levels; level++) {
      if (level < levels - 2) {
        found.push(this.#blockMeans(velocity, piece.patch_sizes[level + 1], piece.patch_steps[level + 1]));
      }
      else if (level === levels - 1 || level === 0) found.push(velocity);
      else found.push(found[level - 1].map((mean, i) => (data.tokens[i] ? mean : 0)));
    }
    return found;
  }

  #notes() {
    const { width, size, velocity } = this, { tokens } = this.data, found = [];
    for (let i = 0; i < size; i++) {
      const orphan = tokens[i] === HOLD && i % width === 0;
      if (tokens[i] < ONSET && !orphan) continue;
      let end = i + 1;
      while (end % width && tokens[end] === HOLD) end++;
      found.push({ pitch: Math.floor(i / width), start: i % width, end: (i % width) + end - i, velocity: velocity[i] });
    }
    return found.sort((one, other) => one.start - other.start || one.pitch - other.pitch);
  }

  /** Seconds of music at which each step begins, and the last one ends. */
  #seconds() {
    const clock = new Float64Array(this.width + 1), { tempos, steps_per_quarter: quarter } = this.piece;
    for (let step = 0; step < this.width; step++) {
      const [, tempo] = tempos.findLast(([start]) => start <= step);
      clock[step + 1] = clock[step] + 60 / (tempo * quarter);
    }
    return clock;
  }

  /** The step, and the share of it, at a second of the music. */
  stepAt(seconds) {
    const { clock, width } = this, step = clamp(clock.findLastIndex((start) => start <= seconds), 0, width - 1);
    return clamp(step + (seconds - clock[step]) / (clock[step + 1] - clock[step]), 0, width);
  }

  /** Of every first-level patch the step that decided it, and its corner. */
  #patches() {
    const { rows, width, patch, data } = this, { columns } = this.piece, found = [];
    for (let row = 0; row < rows; row += patch) {
      columns.forEach((column, number) => {
        const end = Math.min(columns[number + 1] ?? width, width);
        let step = -1; // known cells say nothing, so every cell is asked
        for (let pitch = row; pitch < row + patch; pitch++)
          for (let at = column; at < end; at++) step = Math.max(step, data.decided[pitch * width + at]);
        found.push({ row, column, end, step });
      });
    }
    return found;
  }

  // ---- the process: which level has reached each cell ----

  /** Positions of a view. */
  length(view = this.view) {
    return view === "hierarchical" ? this.levelStarts[this.levels] : this.steps * this.levels;
  }

  levelAt(position) {
    return clamp(this.levelStarts.findIndex((start) => position <= start) - 1, 0, this.levels - 1);
  }

  /** Loudness of a cell as far as it is decided. */
  shown(i) {
    return this.stage[i] ? this.details[this.stage[i] - 1][i] : 0;
  }

  /** Steps of the first level that have begun. */
  get begun() {
    return Math.ceil(this.position / this.levels);
  }

  goTo(position) {
    this.position = clamp(position, 0, this.length());
    const { levels, size, stage } = this, { known, decided } = this.data;
    if (this.view === "hierarchical") {
      const level = this.levelAt(this.position), local = this.plane(level);
      const reached = ((this.position - this.levelStarts[level]) * this.localSteps[level]) / this.ticks[level];
      for (let i = 0; i < size; i++) stage[i] = known[i] ? levels : level + (local[i] >= 0 && local[i] < reached);
    } else {
      const step = Math.floor(this.position / levels), phase = this.position % levels;
      for (let i = 0; i < size; i++) {
        const at = decided[i];
        stage[i] = known[i] || (at >= 0 && at < step) ? levels : at === step ? phase : 0;
      }
    }
  }

  // ---- in words ----

  label() {
    const { piece, position, levels } = this;
    if (!this.length()) return "Nothing composed";
    if (position === 0) return this.view === "hierarchical" && piece.lane.length ? "Plan" : "Init";
    if (this.view === "hierarchical") {
      const level = this.levelAt(position), count = piece.num_iter_list[level];
      const done = (position - this.levelStarts[level]) / this.ticks[level];
      return `L${level} step ${Math.max(1, Math.ceil(done * count))}/${count}`;
    }
    const step = this.begun, phase = position % levels;
    const [iteration, batch] = this.data.steps.subarray(2 * step - 2);
    const alone = piece.generators[0] === "ar";
    const name = alone ? `AR L0 patch ${step}/${this.steps}` : `Iter ${iteration + 1} batch ${batch + 1}`;
    return phase ? `${name} · L${phase - 1}` : name;
  }

  statistics() {
    const level = this.levelAt(this.position), { levels, width, stage, piece } = this;
    if (this.view === "hierarchical" && level < levels - 1) return this.finds[level];
    const pitches = this.notes.filter(({ pitch, start }) => stage[pitch * width + start] === levels).map(({ pitch }) => pitch);
    const parts = [`${pitches.length} ${pitches.length === 1 ? "note" : "notes"}`];
    const [low, high] = [Math.min, Math.max].map((one) => pitchName(pitches.reduce((a, b) => one(a, b), pitches[0]), piece.flats));
    if (pitches.length) parts.push(`${low} to ${high}`);
    if (this.view !== "hierarchical" && this.begun) parts.push(`${this.data.seconds[this.begun - 1].toFixed(1)} s`);
    return parts.join(" · ");
  }

  /** What there is to know about a cell: name, place in time, loudness, who decided it and when. */
  tell(pitch, step) {
    const { piece, data, stage, levels, velocity } = this;
    const i = pitch * this.width + step, token = data.tokens[i];
    const bar = piece.bars.findLastIndex((start) => start <= step);
    const beats = piece.beats.filter((beat) => beat >= piece.bars[bar] && beat <= step);
    let what = "silence", long = "";
    if (stage[i] === levels && token) {
      const note = this.notes.find((one) => one.pitch === pitch && one.start <= step && step < one.end);
      what = `velocity ${Math.round(velocity[i] * 127)}`;
      const steps = note ? note.end - note.start : 1;
      long = `${token === HOLD ? "held" : "struck"}, ${steps} ${steps === 1 ? "step" : "steps"} long`;
    } else if (this.shown(i)) what = `mean velocity ${Math.round(this.shown(i) * 127)} at L${stage[i] - 1}`;
    else if (!stage[i]) what = "not decided yet";
    const time = `bar ${bar + 1} : beat ${beats.length} : step ${step - beats.at(-1) + 1}`;
    const lines = [`${pitchName(pitch, piece.flats)} · ${what}`, time];
    if (long) lines.push(long);
    if (data.known[i]) return [...lines, "given, not composed"].join("\n");
    const path = piece.patch_sizes.map((_, level) => data.decided[level * this.size + i]);
    const level = stage[i] ? path.findLastIndex((at) => at >= 0) : 0; // no hint at what is yet to come
    const asked = path.slice(0, Math.min(level, levels - 2) + 1); // a cell's velocity takes no steps of its own
    const places = asked.map((at, l) => `${at + 1}/${l ? this.localSteps[l] : this.steps}`);
    const when = stage[i] ? "decided" : "begins";
    lines.push(`${when} at L${level} (${piece.generators[level].toUpperCase()}), step ${places.join(" › ")}`);
    if (data.chances && stage[i]) lines.push(`chance to sound ${Math.round(data.chances[i] / 2.55)} %`);
    return lines.join("\n");
  }
}
