/** Where ticks and pitches are on the canvas of the roll, which stays in place while its box scrolls. */
import { bars, barAt, clamp } from "./document.js";

export const GUTTER = 56,
  RULER = 28,
  FORM = 20,
  CHORDS = 24,
  VELOCITY = 76;
export const TOP = RULER + FORM + CHORDS;
const ZERO = GUTTER + 6; // where the piece begins
const BEHIND = 16; // bars that can be scrolled to behind the end

/** A class that extends it has `paint(now)`, which draws a frame. */
export class Viewport {
  #still = null;

  /** `studio.shown` is the piece whose places these are. */
  constructor(studio, scroller) {
    Object.assign(this, { studio, scroller, canvas: scroller.querySelector("canvas"), scale: 0.09, row: 13 });
    this.spacer = scroller.querySelector(".spacer");
    new ResizeObserver(() => this.measure()).observe(scroller);
    scroller.addEventListener("scroll", () => this.invalidate());
  }

  /** A frame is drawn soon. */
  invalidate() {
    this.pending ??= requestAnimationFrame((now) => {
      this.pending = null;
      const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.scroller;
      this.#still = { scrollLeft, scrollTop, clientWidth, clientHeight };
      try {
        if (clientWidth) this.paint(now);
      } finally {
        this.#still = null;
      }
    });
  }

  // ---- places ----

  /** The box; while a frame is painted, what it was at its beginning, because asking it each time is slow. */
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
  stemsAt(x) {
    return this.studio.shown.notes.filter(({ start }) => Math.abs(this.x(start) - x) <= 5);
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

  /** The scale at which the whole piece is in sight, or eight bars of an empty one. */
  get whole() {
    const { shown } = this.studio;
    return Math.max(1, this.width - ZERO - 24) / (shown.length || bars(shown)[8].tick);
  }

  /** Zoom by factors in time and in pitch; the point of the canvas stays where it is. */
  zoom(time, pitch = 1, x = GUTTER + (this.width - GUTTER) / 2, y = (TOP + this.bottom) / 2) {
    const tick = this.tickAt(x),
      rows = (y - TOP + this.scroller.scrollTop) / this.row;
    this.scale = clamp(this.scale * time, Math.min(0.008, this.whole), 0.8);
    this.row = clamp(this.row * pitch, 4, 36);
    this.measure();
    this.scroller.scrollLeft = tick * this.scale - (x - ZERO);
    this.scroller.scrollTop = rows * this.row - (y - TOP);
  }

  /** The whole piece in sight. */
  fit() {
    const { shown } = this.studio;
    const pitches = shown.notes.map(({ pitch }) => pitch);
    const usual = this.studio.composing ? [34, 89] : [48, 79]; // where most notes will be
    const low = Math.min(usual[0], ...pitches) - 3,
      high = Math.max(usual[1], ...pitches) + 3;
    this.scale = Math.min(this.whole, 0.2);
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
}
