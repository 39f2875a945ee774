/** The piano roll: one canvas that stays in place while its box scrolls.  It draws what the studio holds, no more. */
import { GRID, QUARTER, bars, barAt, clamp, isBlack, pitchName } from "./document.js";

export const GUTTER = 56,
  RULER = 28,
  FORM = 20,
  CHORDS = 24,
  VELOCITY = 76;
export const TOP = RULER + FORM + CHORDS;
const ZERO = GUTTER + 6; // where the piece begins
const SHADES = 32,
  BEHIND = 16; // bars that can be scrolled to behind the end
const RAMPS = {
  dark: ["#3f6fd0", "#6f86f2", "#b58af5", "#f58ac8", "#ff9f80", "#ffd080", "#fff0b8"],
  light: ["#8fa9e6", "#6a86de", "#6d5fd0", "#9a45b8", "#c23a7e", "#c9472f", "#8f2a10"],
};

/** Colours from soft to loud. */
function ramp(stops) {
  const channels = stops.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  return Array.from({ length: SHADES }, (_, i) => {
    const at = (i / (SHADES - 1)) * (stops.length - 1),
      left = Math.min(Math.floor(at), stops.length - 2);
    return `rgb(${channels[left].map((from, c) => Math.round(from + (at - left) * (channels[left + 1][c] - from)))})`;
  });
}

const shades = { dark: ramp(RAMPS.dark), light: ramp(RAMPS.light) };
export const shade = (theme, velocity) =>
  shades[theme][clamp(Math.round(((velocity - 24) / 100) * (SHADES - 1)), 0, SHADES - 1)];

export class Roll {
  #still = null;

  /**
   * `studio`: what there is to draw: `shown` (a piece), `selection`, `region`, `cursor`, `loop`, `moving`, `theme`,
   * `byHand`, `marquee`, `sounding` (pitches).
   */
  constructor(studio, scroller) {
    Object.assign(this, { studio, scroller, canvas: scroller.querySelector("canvas"), scale: 0.09, row: 13 });
    this.pen = this.canvas.getContext("2d");
    this.spacer = scroller.querySelector(".spacer");
    new ResizeObserver(() => this.measure()).observe(scroller);
    scroller.addEventListener("scroll", () => this.invalidate());
  }

  // ---- places ----

  /** The box; while a frame is drawn, what it was at its beginning, because asking it each time is slow. */
  get seen() {
    return this.#still ?? this.scroller;
  }
  get width() {
    return this.seen.clientWidth;
  }
  get height() {
    return this.seen.clientHeight;
  }
  get bottom() {
    return this.height - this.velocity;
  }
  get velocity() {
    return this.height < 380 ? 0 : VELOCITY;
  }
  x(tick) {
    return ZERO + tick * this.scale - this.seen.scrollLeft;
  }
  y(pitch) {
    return TOP + (127 - pitch) * this.row - this.seen.scrollTop;
  } // the upper edge of its row
  tickAt(x) {
    return (x - ZERO + this.seen.scrollLeft) / this.scale;
  }
  pitchAt(y) {
    return clamp(127 - Math.floor((y - TOP + this.seen.scrollTop) / this.row), 0, 127);
  }
  velocityAt(y) {
    return clamp(Math.round(127 * (1 - (y - this.bottom - 8) / (this.velocity - 14))), 1, 127);
  }

  /** What is at a point of the canvas: `{area, tick, pitch, note, edge}`. */
  hit(x, y) {
    const tick = Math.max(0, this.tickAt(x)),
      pitch = this.pitchAt(y);
    if (x < GUTTER) return { area: y < TOP ? "corner" : "keys", tick, pitch };
    if (y < RULER) return { area: "ruler", tick, pitch };
    if (y < RULER + FORM) return { area: "sections", tick, pitch };
    if (y < TOP) return { area: "chords", tick, pitch };
    if (y >= this.bottom) return { area: "velocity", tick, pitch };
    const { notes } = this.studio.shown,
      slack = 3 / this.scale;
    const note = notes.findLast(
      (one) => one.pitch === pitch && tick >= one.start - slack && tick <= one.start + one.duration + slack,
    );
    if (!note) return { area: "notes", tick, pitch };
    const room = Math.min(8 / this.scale, note.duration / 3);
    const edge = tick > note.start + note.duration - room ? "end" : tick < note.start + room / 2 ? "start" : null;
    return { area: "notes", tick, pitch, note, edge };
  }

  /** Notes whose stem in the velocity lane is near a place. */
  stemsAt(x, reach = 5) {
    return this.studio.shown.notes.filter(({ start }) => Math.abs(this.x(start) - x) <= reach);
  }

  // ---- scrolling and zoom ----

  measure() {
    const { canvas, scroller, spacer } = this,
      all = bars(this.studio.shown);
    const end = all[Math.min(all.length - 1, barAt(this.studio.shown, this.studio.shown.length) + BEHIND)].tick;
    const size = [`${Math.round(ZERO + end * this.scale)}px`, `${Math.round(TOP + 128 * this.row + this.velocity)}px`];
    if (spacer.style.width !== size[0]) spacer.style.width = size[0];
    if (spacer.style.height !== size[1]) spacer.style.height = size[1];
    this.ratio = window.devicePixelRatio || 1;
    if (this.before) scroller.scrollTop -= (this.height - this.before) / 2; // what is in the middle stays there
    this.before = this.height;
    const [width, height] = [this.width, this.height].map((length) => Math.round(length * this.ratio));
    if (canvas.width !== width || canvas.height !== height) {
      Object.assign(canvas, { width, height });
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${this.height}px`;
    }
    this.invalidate();
  }

  /** Zoom by factors in time and in pitch; the point of the canvas stays where it is. */
  zoom(time, pitch = 1, x = GUTTER + (this.width - GUTTER) / 2, y = (TOP + this.bottom) / 2) {
    const tick = this.tickAt(x),
      rows = (y - TOP + this.scroller.scrollTop) / this.row;
    this.scale = clamp(this.scale * time, 0.008, 0.8);
    this.row = clamp(this.row * pitch, 4, 36);
    this.measure();
    this.scroller.scrollLeft = tick * this.scale - (x - ZERO);
    this.scroller.scrollTop = rows * this.row - (y - TOP);
  }

  /** The whole piece in sight, or eight bars of an empty one. */
  fit() {
    const { shown } = this.studio,
      length = shown.length || bars(shown)[8].tick;
    const pitches = shown.notes.map(({ pitch }) => pitch);
    const usual = this.studio.composing ? [34, 89] : [48, 79]; // where most notes will be
    const low = Math.min(usual[0], ...pitches) - 3,
      high = Math.max(usual[1], ...pitches) + 3;
    this.scale = clamp((this.width - ZERO - 24) / length, 0.024, 0.2);
    this.row = clamp((this.bottom - TOP) / (high - low + 1), 6, 22);
    this.measure();
    this.scroller.scrollLeft = 0;
    this.scroller.scrollTop = (127 - (high + low) / 2) * this.row - (this.bottom - TOP) / 2;
  }

  /** Brings a tick (and a pitch) into sight. */
  reveal(tick, pitch = null) {
    const x = this.x(tick);
    if (x < GUTTER || x > this.width - 24) this.scroller.scrollLeft = tick * this.scale - 0.1 * (this.width - GUTTER);
    if (pitch === null) return;
    const y = this.y(pitch);
    if (y < TOP || y > this.bottom - this.row)
      this.scroller.scrollTop = (127 - pitch) * this.row - (this.bottom - TOP) / 2;
  }

  // ---- drawing ----

  invalidate() {
    this.pending ??= requestAnimationFrame((now) => {
      this.pending = null;
      this.draw(now);
    });
  }

  restyle() {
    const style = getComputedStyle(document.documentElement);
    const names =
      "paper roll row octave beat bar line ink soft accent white black key lock right left on-accent loop".split(" ");
    this.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.font = getComputedStyle(document.body).fontFamily;
    this.larger = Math.min(1.2, parseFloat(style.fontSize) / 16); // texts grow with those of the page
    this.invalidate();
  }

  fill(colour, x0, y0, x1, y1) {
    const { pen, ratio } = this,
      left = Math.round(x0 * ratio),
      top = Math.round(y0 * ratio);
    pen.fillStyle = colour;
    pen.fillRect(left, top, Math.max(1, Math.round(x1 * ratio) - left), Math.max(1, Math.round(y1 * ratio) - top));
  }

  text(colour, text, x, y, { size = 11, weight = 400, room = Infinity, align = "left" } = {}) {
    const { pen, ratio } = this;
    pen.font = `${weight} ${size * this.larger * ratio}px ${this.font}`;
    if (room < Infinity && pen.measureText(text).width > room * ratio) return;
    pen.fillStyle = colour;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    pen.fillText(text, x * ratio, y * ratio);
  }

  clip(x0, y0, x1, y1, draw) {
    const { pen, ratio } = this;
    pen.save();
    pen.beginPath();
    pen.rect(x0 * ratio, y0 * ratio, (x1 - x0) * ratio, (y1 - y0) * ratio);
    pen.clip();
    draw();
    pen.restore();
  }

  colour(note) {
    const { studio, colours } = this;
    if (studio.byHand) return note.hand < 0 ? colours.soft : note.hand ? colours.left : colours.right;
    return shade(studio.theme, note.velocity);
  }

  draw(now) {
    if (!this.colours || !this.width) return;
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.scroller;
    this.#still = { scrollLeft, scrollTop, clientWidth, clientHeight };
    try {
      this.#draw(now);
    } finally {
      this.#still = null;
    }
  }

  #draw(now) {
    const { studio, colours } = this,
      from = this.tickAt(GUTTER) - 1,
      to = this.tickAt(this.width);
    this.fill(colours.paper, 0, 0, this.width, this.height);
    this.clip(GUTTER, TOP, this.width, this.bottom, () => {
      this.drawPaper(from, to);
      const { moving } = studio,
        busy = moving?.drawUnder(this, now);
      this.drawRegion();
      for (const note of studio.shown.notes)
        if (note.start < to && note.start + note.duration > from) this.drawNote(note);
      if (moving?.drawOver(this, now) || busy) this.invalidate();
      if (studio.marquee) this.drawFrame(studio.marquee, colours.soft);
    });
    if (this.velocity) this.clip(GUTTER, this.bottom, this.width, this.height, () => this.drawVelocities(from, to));
    this.clip(GUTTER, 0, this.width, TOP, () => this.drawLanes(from, to));
    this.clip(GUTTER, 0, this.width, this.height, () => this.drawCursor());
    this.drawKeys();
  }

  drawPaper(from, to) {
    const { colours, studio } = this,
      end = this.x(studio.shown.length);
    this.fill(colours.roll, GUTTER, TOP, this.width, this.bottom);
    for (let pitch = this.pitchAt(this.bottom); pitch <= this.pitchAt(TOP); pitch++) {
      const y = this.y(pitch);
      if (isBlack(pitch)) this.fill(colours.row, GUTTER, y, this.width, y + this.row);
      if (pitch % 12 === 0) this.fill(colours.octave, GUTTER, y + this.row - 0.5, this.width, y + this.row);
      else if (pitch % 12 === 5 && this.row >= 9)
        this.fill(colours.beat, GUTTER, y + this.row - 0.5, this.width, y + this.row);
    }
    this.drawGrid(from, to, TOP, this.bottom);
    if (end < this.width) {
      this.pen.globalAlpha = 0.55;
      this.fill(colours.paper, Math.max(end, GUTTER), TOP, this.width, this.bottom);
      this.pen.globalAlpha = 1;
    }
  }

  /** Paper instead of what stands in boxes `[x0, y0, x1, y1]`. */
  blank(boxes) {
    const { pen, ratio } = this;
    pen.save();
    pen.beginPath();
    for (const [x0, y0, x1, y1] of boxes) pen.rect(x0 * ratio, y0 * ratio, (x1 - x0) * ratio, (y1 - y0) * ratio);
    pen.clip();
    this.drawPaper(this.tickAt(GUTTER) - 1, this.tickAt(this.width));
    pen.restore();
  }

  drawGrid(from, to, top, bottom) {
    const { colours } = this;
    for (const { tick, ticks, unit } of bars(this.studio.shown)) {
      if (tick + ticks < from || tick > to) continue;
      const beat = (4 * QUARTER) / unit,
        fine = this.scale * GRID >= 9 ? GRID : this.scale * beat >= 12 ? beat : ticks;
      for (let at = tick + fine; at < tick + ticks; at += fine) {
        this.pen.globalAlpha = (at - tick) % beat ? 0.5 : 1;
        this.fill(colours.beat, this.x(at), top, this.x(at) + 0.5, bottom);
      }
      this.pen.globalAlpha = 1;
      if (this.scale * ticks >= 6) this.fill(colours.bar, this.x(tick), top, this.x(tick) + 1, bottom);
    }
  }

  drawNote(note) {
    const { pen, ratio, colours, studio, row } = this,
      chosen = studio.selection.has(note.id);
    const x0 = this.x(note.start),
      x1 = Math.max(this.x(note.start + note.duration) - 1, x0 + 2),
      y = this.y(note.pitch);
    const given = studio.composing && studio.live.isGiven(note);
    pen.globalAlpha = given ? 0.45 : 1;
    const gap = row > 6 ? 0.5 : 0;
    this.box(x0, y + gap, x1, y + row - gap, row >= 8 ? 2.5 : 1);
    pen.fillStyle = this.colour(note);
    pen.fill();
    if (note.locked) this.hatch();
    if (chosen) {
      pen.strokeStyle = colours.ink;
      pen.lineWidth = Math.min(2, (x1 - x0) / 4) * ratio;
      pen.stroke();
    }
    pen.globalAlpha = 1;
    if (row >= 13 && x1 - x0 > 26)
      this.text(
        studio.theme === "light" && note.velocity > 56 ? "#fff" : "#0d1016",
        pitchName(note.pitch, studio.shown.key),
        x0 + 4,
        y + row / 2 + 0.5,
        { size: Math.min(10.5, row - 3), weight: 600 },
      );
  }

  /** A rounded box as the current path. */
  box(x0, y0, x1, y1, radius) {
    const { pen, ratio } = this;
    const left = Math.round(x0 * ratio),
      top = Math.round(y0 * ratio);
    pen.beginPath();
    pen.roundRect(
      left,
      top,
      Math.max(2, Math.round(x1 * ratio) - left),
      Math.max(2, Math.round(y1 * ratio) - top),
      radius * ratio,
    );
  }

  /** Stripes over the current path: what is locked. */
  hatch() {
    const { pen, ratio, colours } = this;
    this.stripes ??= {};
    const key = `${colours.lock} ${ratio}`;
    if (!this.stripes[key]) {
      const size = Math.round(6 * ratio),
        tile = new OffscreenCanvas(size, size),
        ink = tile.getContext("2d");
      ink.strokeStyle = colours.lock;
      ink.lineWidth = 1.6 * ratio;
      for (const by of [-size, 0, size]) {
        ink.moveTo(by, size);
        ink.lineTo(by + size, 0);
      }
      ink.stroke();
      this.stripes = { [key]: pen.createPattern(tile, "repeat") };
    }
    pen.fillStyle = this.stripes[key];
    pen.fill();
  }

  drawRegion() {
    const { region } = this.studio;
    if (!region) return;
    this.drawFrame(region, this.colours.accent);
    const x0 = this.x(region.start),
      x1 = this.x(region.end),
      middle = (this.y(region.high - 1) + this.y(region.low) + this.row) / 2;
    for (const x of [x0, x1]) this.fill(this.colours.accent, x - 2, middle - 12, x + 2, middle + 12);
  }

  drawFrame({ start, end, low, high }, colour) {
    const { pen, ratio } = this;
    this.box(this.x(start), this.y(high - 1), this.x(end), this.y(low) + this.row, 4);
    pen.fillStyle = pen.strokeStyle = colour;
    pen.globalAlpha = 0.1;
    pen.fill();
    pen.globalAlpha = 0.9;
    pen.lineWidth = 1.5 * ratio;
    pen.stroke();
    pen.globalAlpha = 1;
  }

  drawVelocities(from, to) {
    const { colours, studio, pen, ratio } = this,
      floor = this.height - 6,
      room = this.velocity - 14;
    this.fill(colours.roll, GUTTER, this.bottom, this.width, this.height);
    this.drawGrid(from, to, this.bottom, this.height);
    this.fill(colours.line, GUTTER, this.bottom, this.width, this.bottom + 1);
    for (const note of studio.shown.notes) {
      if (note.start < from - 200 || note.start > to) continue;
      const chosen = studio.selection.has(note.id),
        x = this.x(note.start) + 1,
        y = floor - (room * note.velocity) / 127;
      pen.globalAlpha = studio.selection.size && !chosen ? 0.35 : 1;
      const colour = chosen ? colours.ink : this.colour(note);
      this.fill(colour, x - 0.75, y, x + 0.75, floor);
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(x * ratio, y * ratio, (chosen ? 4 : 3) * ratio, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /** Ruler, form and chords. */
  drawLanes(from, to) {
    const { colours, studio } = this,
      piece = studio.shown;
    this.fill(colours.paper, GUTTER, 0, this.width, TOP);
    const all = bars(piece),
      wide = this.scale * all[0].ticks,
      every = [1, 2, 4, 8, 16, 32].find((n) => n * wide >= 34) ?? 64;
    all.forEach(({ tick, ticks }, index) => {
      if (tick + ticks < from || tick > to || index % every) return;
      const x = this.x(tick);
      this.fill(colours.bar, x, RULER - 9, x + 1, RULER);
      this.text(tick < piece.length ? colours.ink : colours.soft, `${index + 1}`, x + 5, RULER / 2 + 1, {
        weight: 500,
      });
    });
    if (studio.loop) {
      const { start, end } = studio.loop;
      this.box(this.x(start), RULER - 6, this.x(end), RULER - 2, 2);
      this.pen.fillStyle = studio.looping ? colours.loop : colours.soft;
      this.pen.globalAlpha = studio.looping ? 1 : 0.5;
      this.pen.fill();
      this.pen.globalAlpha = 1;
    }
    this.fill(colours.line, GUTTER, RULER, this.width, RULER + 0.5);
    this.drawSections(piece, from, to);
    this.fill(colours.line, GUTTER, RULER + FORM, this.width, RULER + FORM + 0.5);
    this.drawChords(piece, from, to);
    this.fill(colours.line, GUTTER, TOP - 0.5, this.width, TOP);
  }

  drawSections({ sections, length }, from, to) {
    const { colours, pen } = this,
      letters = [...new Set(sections.map(([, name]) => name[0]))];
    sections.forEach(([tick, name], i) => {
      const end = sections[i + 1]?.[0] ?? length;
      if (end < from || tick > to) return;
      const x = this.x(tick),
        middle = RULER + FORM / 2 + 0.5;
      pen.globalAlpha = 0.16 + 0.14 * ((letters.indexOf(name[0]) * 2) % 3);
      this.box(x + 1, RULER + 2.5, this.x(end) - 1, RULER + FORM - 1.5, 4);
      pen.fillStyle = colours.accent;
      pen.fill();
      pen.globalAlpha = 1;
      this.text(colours.ink, name, Math.max(x, GUTTER) + 8, middle, {
        weight: 600,
        room: this.x(end) - Math.max(x, GUTTER) - 8,
      });
    });
  }

  drawChords({ chords, length }, from, to) {
    const { colours } = this,
      middle = TOP - CHORDS / 2;
    chords.forEach(([tick, name], i) => {
      const end = chords[i + 1]?.[0] ?? Math.max(length, tick + 4 * QUARTER);
      if (end < from || tick > to) return;
      const x = this.x(tick),
        playing = this.studio.cursor >= tick && this.studio.cursor < end && this.studio.playing;
      this.fill(colours.bar, x, RULER + FORM + 5, x + 1, TOP - 5);
      this.text(playing ? colours.accent : name === "N.C." ? colours.soft : colours.ink, name, x + 5, middle, {
        size: 12,
        weight: playing ? 700 : 500,
        room: this.x(end) - x - 4,
      });
    });
  }

  drawCursor() {
    const { studio, colours, pen, ratio } = this,
      x = this.x(studio.cursor);
    if (x < GUTTER - 8) return;
    this.fill(colours.ink, x - 0.6, RULER - 2, x + 0.6, this.height);
    pen.fillStyle = colours.ink;
    pen.beginPath();
    for (const [dx, y] of [
      [-6, RULER - 13],
      [6, RULER - 13],
      [6, RULER - 7],
      [0, RULER - 1],
      [-6, RULER - 7],
    ])
      pen.lineTo((x + dx) * ratio, y * ratio);
    pen.fill();
  }

  drawKeys() {
    const { colours, studio, row } = this,
      right = GUTTER - 1;
    this.clip(0, TOP, right, this.bottom, () => {
      this.fill(colours.white, 0, TOP, right, this.bottom);
      for (let pitch = this.pitchAt(this.bottom); pitch <= this.pitchAt(TOP); pitch++) {
        const y = this.y(pitch),
          lit = studio.sounding?.has(pitch),
          middle = y + row / 2;
        if (isBlack(pitch)) {
          if (row >= 4) this.fill(colours.key, 0, middle - 0.3, right, middle + 0.3);
          this.box(-3, y + 0.5, right * 0.62, y + row - 0.5, 2);
          this.pen.fillStyle = lit ? colours.accent : colours.black;
          this.pen.fill();
          continue;
        }
        if (lit)
          this.fill(colours.accent, isBlack(pitch - 1) || isBlack(pitch + 1) ? right * 0.62 : 0, y, right, y + row);
        if (pitch % 12 === 0 || pitch % 12 === 5) this.fill(colours.key, 0, y + row - 0.5, right, y + row);
        if (pitch % 12 === 0 && row * 12 > 20)
          this.text("#4a4d55", pitchName(pitch), right - 5, middle, {
            size: clamp(row - 2, 8, 11),
            weight: 500,
            align: "right",
          });
      }
    });
    for (const [name, y] of [
      ["form", RULER + FORM / 2],
      ["chords", TOP - CHORDS / 2],
    ])
      this.text(colours.soft, studio.t(`lane.${name}`), GUTTER - 8, y + 0.5, { size: 10, align: "right" });
    if (this.velocity)
      this.text(colours.soft, studio.t("lane.velocity"), GUTTER - 8, this.bottom + 14, { size: 10, align: "right" });
    this.fill(colours.line, right, 0, right + 1, this.height);
  }
}

/** A piece in small, as a picture on a canvas. */
export function miniature(canvas, piece, theme, region = null) {
  const pen = canvas.getContext("2d"),
    ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((length) => Math.round(length * ratio));
  Object.assign(canvas, { width, height });
  const { start, end } = region ?? { start: 0, end: piece.length || 1 };
  const notes = piece.notes.filter((note) => note.start < end && note.start + note.duration > start);
  const pitches = notes.map(({ pitch }) => pitch),
    low = Math.min(48, ...pitches) - 2,
    high = Math.max(72, ...pitches) + 2;
  const thick = height / (high - low + 1);
  for (const note of notes) {
    pen.fillStyle = shade(theme, note.velocity);
    const x = ((note.start - start) / (end - start)) * width,
      wide = (note.duration / (end - start)) * width;
    pen.fillRect(x, (high - note.pitch) * thick, Math.max(ratio, wide - 0.5 * ratio), Math.max(ratio, thick - 0.3));
  }
}
