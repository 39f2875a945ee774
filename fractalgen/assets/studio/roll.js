/** The piano roll.  It draws what the studio holds, no more. */
import { GRID, QUARTER, bars, isBlack, pitchName } from "./document.js";
import { drawCursor, drawKeys, drawLanes, drawVelocities } from "./margins.js";
import { shade } from "./shades.js";
import { GUTTER, TOP, Viewport } from "./viewport.js";

const NARROW = 0.72; // of their width, to which letters are squeezed

export class Roll extends Viewport {
  /**
   * `studio`: what there is to draw: `shown` (a piece), `selection`, `region`, `cursor`, `loop`, `moving`, `theme`,
   * `byHand`, `marquee`, `sounding` (pitches).
   */
  constructor(studio, scroller) {
    super(studio, scroller);
    this.pen = this.canvas.getContext("2d");
  }

  restyle() {
    const style = getComputedStyle(document.documentElement);
    const names =
      "paper roll row octave beat bar line ink soft accent white black key lock right left loop".split(" ");
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

  /** Where `room` is short the letters become narrow, then the end fades; almost no room stays empty. */
  text(colour, text, x, y, { size = 11, weight = 400, room = Infinity, align = "left" } = {}) {
    if (room < size) return;
    const { pen, ratio } = this,
      most = room * ratio;
    pen.font = `${weight} ${size * this.larger * ratio}px ${this.font}`;
    pen.fillStyle = colour;
    pen.textAlign = align;
    pen.textBaseline = "middle";
    const wide = most < Infinity ? pen.measureText(text).width : 0;
    if (wide <= most) return pen.fillText(text, x * ratio, y * ratio);
    const narrow = Math.max(NARROW, most / wide);
    pen.save();
    pen.translate(x * ratio, y * ratio);
    pen.scale(narrow, 1);
    if (wide * narrow > most) pen.fillStyle = this.#fading(colour, most / narrow);
    pen.fillText(text, 0, 0);
    pen.restore();
  }

  #fading(colour, end) {
    const shades = this.pen.createLinearGradient(0, 0, end, 0);
    shades.addColorStop(0.6, colour);
    shades.addColorStop(1, "transparent");
    return shades;
  }

  /** Draws in boxes `[x0, y0, x1, y1]` only. */
  clip(boxes, draw) {
    const { pen, ratio } = this;
    pen.save();
    pen.beginPath();
    for (const [x0, y0, x1, y1] of boxes) pen.rect(x0 * ratio, y0 * ratio, (x1 - x0) * ratio, (y1 - y0) * ratio);
    pen.clip();
    draw();
    pen.restore();
  }

  colour(note) {
    const { studio, colours } = this;
    if (studio.byHand) return note.hand < 0 ? colours.soft : note.hand ? colours.left : colours.right;
    return shade(studio.theme, note.velocity);
  }

  paint(now) {
    if (!this.colours) return;
    const from = this.tickAt(GUTTER) - 1,
      to = this.tickAt(this.width);
    this.fill(this.colours.paper, 0, 0, this.width, this.height);
    this.clip([[GUTTER, TOP, this.width, this.bottom]], () => this.#drawNotes(now, from, to));
    if (this.velocity)
      this.clip([[GUTTER, this.bottom, this.width, this.height]], () => drawVelocities(this, from, to));
    this.clip([[GUTTER, 0, this.width, TOP]], () => drawLanes(this, from, to));
    this.clip([[GUTTER, 0, this.width, this.height]], () => drawCursor(this));
    drawKeys(this);
  }

  #drawNotes(now, from, to) {
    const { shown, moving, marquee } = this.studio;
    this.drawPaper(from, to);
    const busy = moving?.drawUnder(this, now);
    this.drawRegion();
    for (const note of shown.notes) if (note.start < to && note.start + note.duration > from) this.drawNote(note);
    if (moving?.drawOver(this, now) || busy) this.invalidate();
    if (marquee) this.drawFrame(marquee, this.colours.soft);
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

  /** Paper instead of what stands in boxes. */
  blank(boxes) {
    this.clip(boxes, () => this.drawPaper(this.tickAt(GUTTER) - 1, this.tickAt(this.width)));
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
    this.fillBox(this.colour(note), x0, y + gap, x1, y + row - gap, row >= 8 ? 2.5 : 1);
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

  /** A rounded box; it stays the current path. */
  fillBox(colour, ...box) {
    this.box(...box);
    this.pen.fillStyle = colour;
    this.pen.fill();
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
    pen.globalAlpha = 0.1;
    this.fillBox(colour, this.x(start), this.y(high - 1), this.x(end), this.y(low) + this.row, 4);
    pen.globalAlpha = 0.9;
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5 * ratio;
    pen.stroke();
    pen.globalAlpha = 1;
  }
}
