/**
 * A composition while it is composed.  A patch of 16 pitches by a bar flashes when it is decided; then its patches of 4
 * pitches by a quarter and their cells appear in the order in which the model decided them, until the notes stand there.
 */
import { QUARTER, byTime, readNotes } from "./document.js";
import { shade } from "./shades.js";

const FLASH = 260,
  LOWER = 420,
  CELLS = 420,
  TRAIL = 2600; // milliseconds
const HIGH = 4; // pitches of a second-level patch
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const ease = (share) => 1 - (1 - Math.min(1, Math.max(0, share))) ** 3;

export class Live {
  /** `started`: the server's message of that type; `before`: the piece that was asked from. */
  constructor(started, before) {
    Object.assign(this, started, { shownSample: 0, done: 0, total: 0 });
    this.given = new Set(started.given.map(([, pitch, start]) => `${pitch}:${start}`));
    this.samples = Array.from({ length: started.num_samples }, () => ({ pieces: [], patches: [], plan: {} }));
    const lanes = started.mode === "new" ? { chords: [], sections: [] } : {};
    this.base = { ...before, ...lanes, length: started.length, meters: started.meters, tempos: started.tempos };
    this.kept = readNotes(started.given);
    this.views = this.samples.map(() => null);
    this.begin = this.frontier = started.mode === "continue" ? before.length : 0;
  }

  /** Whether the model goes from left to right, and its plan becomes chords and form of what it composes. */
  get goesOn() {
    return /new|continue/.test(this.mode);
  }

  plan({ sample, chords, sections }) {
    if (!this.goesOn) return; // the lanes stay as they are
    const { begin, base } = this,
      { plan } = this.samples[sample];
    for (const [lane, rows] of Object.entries({ chords, sections })) {
      const now = rows.findLast(([tick]) => tick <= begin);
      const later = rows.filter(([tick]) => tick > begin);
      plan[lane] = [...base[lane].filter(([tick]) => tick < begin), ...(now ? [[begin, now[1]]] : []), ...later];
    }
    this.views[sample] = null;
  }

  patch(message, now) {
    const sample = this.samples[message.sample];
    const size = Math.max(1, message.steps),
      unit = message.ticks / size; // ticks of a step of the model
    const planes = message.planes && Int8Array.from(atob(message.planes), (letter) => letter.charCodeAt(0));
    const cells = loudness(message, size, unit);
    sample.patches.push({ ...message, size, unit, planes, cells, born: now, sounds: cells.some(Boolean) });
    sample.pieces.push(...message.notes);
    this.views[message.sample] = null;
    if (message.sample === this.shownSample) this.frontier = Math.max(this.frontier, message.tick);
    Object.assign(this, { done: message.done, total: message.total });
  }

  /** Time that is settled: what the ear may reach. */
  get limit() {
    return this.generators[0] === "ar" && this.goesOn ? this.frontier : Infinity;
  }

  isGiven({ pitch, start }) {
    return this.given.size > 0 && this.given.has(`${pitch}:${start}`);
  }

  /** What a sample is by now, as a piece. */
  piece(sample = this.shownSample) {
    this.views[sample] ??= this.#joined(this.samples[sample], this.mode === "new" ? this.keys[sample] : this.base.key);
    return this.views[sample];
  }

  /** Notes that go on over the edges of patches are one note. */
  #joined({ pieces, plan }, key) {
    const notes = this.kept.slice(),
      open = new Map(),
      taken = new Set(this.given);
    let id = -2;
    for (const [pitch, start, duration, velocity, continued] of pieces.toSorted((one, other) => one[1] - other[1])) {
      const before = continued && open.get(`${pitch}:${start}`);
      if (!before && taken.has(`${pitch}:${start}`)) continue;
      const note = before || { id: id--, pitch, start, duration: 0, velocity, hand: -1, locked: 0 };
      if (!before) notes.push(note);
      note.duration += duration;
      taken.add(`${pitch}:${start}`);
      open.set(`${pitch}:${start + duration}`, note);
    }
    return { ...this.base, ...plan, key, notes: notes.sort(byTime) };
  }

  /** Plays the composing again, as fast as it was (at most 12 seconds). */
  replay(now) {
    const { patches } = this.samples[this.shownSample],
      first = patches[0]?.born ?? 0;
    const long = Math.max(1, (patches.at(-1)?.born ?? 0) - first),
      speed = Math.max(1, long / 12000);
    for (const patch of patches) patch.born = now + (patch.born - first) / speed;
  }

  #alive(roll, now, age) {
    const from = roll.tickAt(0),
      to = roll.tickAt(roll.width);
    return this.samples[this.shownSample].patches.filter(
      ({ born, tick, ticks }) => now - born < age && tick < to && tick + ticks > from,
    );
  }

  /** The lattice of patches under the notes; whether it still moves. */
  drawUnder(roll, now) {
    if (calm.matches) return false;
    const { pen, colours } = roll,
      alive = this.#alive(roll, now, TRAIL);
    for (const patch of alive) {
      const age = now - patch.born;
      if (age < 0) continue;
      outline(roll, patch, colours.accent, 0.34 * (1 - age / TRAIL) ** 2, 1);
      if (age > FLASH + LOWER) continue;
      pen.globalAlpha = (patch.sounds ? 0.3 : 0.1) * (1 - ease(age / (FLASH + LOWER)));
      const [x0, y0, x1, y1] = place(roll, patch);
      roll.fill(colours.accent, x0, y0, x1, y1);
      pen.globalAlpha = 1;
    }
    return alive.length > 0;
  }

  /** Over the notes of young patches: blocks and cells as they are decided. */
  drawOver(roll, now) {
    if (calm.matches) return false;
    const alive = this.#alive(roll, now, FLASH + LOWER + CELLS),
      sounding = alive.filter(({ sounds }) => sounds);
    if (sounding.length) roll.blank(sounding.map((patch) => place(roll, patch))); // the notes come out of the cells
    for (const patch of alive) this.#drawYoung(roll, patch, now - patch.born);
    return alive.length > 0;
  }

  #drawYoung(roll, patch, age) {
    const { pen, colours } = roll,
      [x0, y0, x1, y1] = place(roll, patch);
    if (!patch.sounds) {
      if (age >= 0 && age < FLASH) outline(roll, patch, colours.accent, 0.7 * (1 - age / FLASH), 1.2);
      return;
    }
    if (age < 0) return;
    pen.globalAlpha = 0.08 + 0.3 * (1 - ease(age / (FLASH + LOWER)));
    roll.fill(colours.accent, x0, y0, x1, y1);
    pen.globalAlpha = 1;
    for (const block of blocks(patch)) this.#drawBlock(roll, patch, block, age);
    outline(roll, patch, colours.accent, 1 - 0.6 * ease(age / (FLASH + LOWER + CELLS)), 2);
  }

  #drawBlock(roll, patch, { left, row, share, loud, cells }, age) {
    const { pen } = roll,
      since = age - 50 - share * LOWER;
    if (since < 0) return;
    const place = (step, pitch, high, wide) => [
      roll.x(patch.tick + step * patch.unit),
      roll.y(patch.pitch + pitch + high - 1),
      roll.x(patch.tick + Math.min(step + wide, patch.size) * patch.unit),
      roll.y(patch.pitch + pitch) + roll.row,
    ];
    const [x0, y0, x1, y1] = place(left, row, HIGH, Math.max(1, QUARTER / patch.unit));
    if (loud) {
      pen.globalAlpha = 0.62 * (1 - 0.75 * ease((since - 120) / CELLS));
      roll.fillBox(shade(roll.studio.theme, loud), x0 + 0.5, y0 + 0.5, x1 - 0.5, y1 - 0.5, 2);
    }
    for (const cell of cells) {
      const grown = ease((since - 90 - cell.share * CELLS * 0.6) / 140);
      if (!grown) continue;
      const [cx0, cy0, cx1, cy1] = place(cell.step, cell.pitch, 1, 1);
      pen.globalAlpha = grown;
      roll.fill(shade(roll.studio.theme, cell.loud), cx0, cy0 + 0.5, cx1, cy1 - 0.5);
    }
    pen.globalAlpha = 1;
  }
}

const place = (roll, { tick, ticks, pitch, pitches }) => [
  roll.x(tick),
  roll.y(pitch + pitches - 1),
  roll.x(tick + ticks),
  roll.y(pitch) + roll.row,
];

function outline(roll, patch, colour, alpha, width) {
  const { pen } = roll,
    [x0, y0, x1, y1] = place(roll, patch);
  pen.globalAlpha = alpha;
  pen.strokeStyle = colour;
  pen.lineWidth = width * roll.ratio;
  roll.box(x0 + 0.5, y0 + 0.5, x1 - 0.5, y1 - 0.5, 2);
  pen.stroke();
  pen.globalAlpha = 1;
}

/** Velocity of every cell of a patch, (pitches, steps). */
function loudness({ notes, tick, pitch, pitches }, size, unit) {
  const cells = new Uint8Array(pitches * size);
  for (const [high, start, duration, velocity] of notes) {
    const from = Math.max(0, Math.round((start - tick) / unit)),
      to = Math.round((start + duration - tick) / unit);
    if (high >= pitch && high < pitch + pitches)
      cells.fill(velocity, (high - pitch) * size + from, (high - pitch) * size + Math.min(size, to));
  }
  return cells;
}

/** The patches of HIGH pitches by a quarter in a patch and the sounding cells in them, each with its share of the time of its level. */
function blocks(patch) {
  if (patch.blocks) return patch.blocks;
  const { size, pitches, cells, planes } = patch,
    area = pitches * size,
    wide = Math.max(1, QUARTER / patch.unit),
    found = [];
  const when = (level, i) => (planes ? planes[level * area + i] : -1);
  const most = [0, 1].map((level) => {
    let last = 1;
    for (let i = 0; i < area; i++) last = Math.max(last, when(level, i));
    return last;
  });
  for (let row = 0; row < pitches; row += HIGH) {
    for (let left = 0; left < size; left += wide) {
      const block = { left, row, share: 0, loud: 0, cells: [] };
      for (let pitch = row; pitch < Math.min(row + HIGH, pitches); pitch++) {
        for (let step = left; step < Math.min(left + wide, size); step++) {
          const i = pitch * size + step;
          block.share = Math.max(block.share, when(0, i) / most[0]);
          if (!cells[i]) continue;
          block.loud = Math.max(block.loud, cells[i]);
          block.cells.push({ pitch, step, loud: cells[i], share: Math.max(0, when(1, i)) / most[1] });
        }
      }
      found.push(block);
    }
  }
  return (patch.blocks = found);
}
