/** What stands around the notes: ruler, form, chords, keys, velocities, and the cursor. */
import { QUARTER, bars, clamp, isBlack, pitchName } from "./document.js";
import { t } from "./i18n.js";
import { CHORDS, FORM, GUTTER, RULER, TOP } from "./viewport.js";

export function drawVelocities(roll, from, to) {
  const { colours, studio, pen, ratio } = roll,
    floor = roll.height - 6,
    room = roll.velocity - 14;
  roll.fill(colours.roll, GUTTER, roll.bottom, roll.width, roll.height);
  roll.drawGrid(from, to, roll.bottom, roll.height);
  roll.fill(colours.line, GUTTER, roll.bottom, roll.width, roll.bottom + 1);
  for (const note of studio.shown.notes) {
    if (note.start < from - 200 || note.start > to) continue;
    const chosen = studio.selection.has(note.id),
      x = roll.x(note.start) + 1,
      y = floor - (room * note.velocity) / 127;
    pen.globalAlpha = studio.selection.size && !chosen ? 0.35 : 1;
    const colour = chosen ? colours.ink : roll.colour(note);
    roll.fill(colour, x - 0.75, y, x + 0.75, floor);
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(x * ratio, y * ratio, (chosen ? 4 : 3) * ratio, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

/** Ruler, form and chords. */
export function drawLanes(roll, from, to) {
  const { colours, studio } = roll,
    piece = studio.shown;
  roll.fill(colours.paper, GUTTER, 0, roll.width, TOP);
  const all = bars(piece),
    wide = roll.scale * all[0].ticks,
    every = 2 ** Math.max(0, Math.ceil(Math.log2(34 / wide)));
  all.forEach(({ tick, ticks }, index) => {
    if (tick + ticks < from || tick > to || index % every) return;
    const x = roll.x(tick);
    roll.fill(colours.bar, x, RULER - 9, x + 1, RULER);
    roll.text(tick < piece.length ? colours.ink : colours.soft, `${index + 1}`, x + 5, RULER / 2 + 1, {
      weight: 500,
    });
  });
  if (studio.loop) {
    const { start, end } = studio.loop;
    const { looping } = studio.player;
    roll.pen.globalAlpha = looping ? 1 : 0.5;
    roll.fillBox(looping ? colours.loop : colours.soft, roll.x(start), RULER - 6, roll.x(end), RULER - 2, 2);
    roll.pen.globalAlpha = 1;
  }
  roll.fill(colours.line, GUTTER, RULER, roll.width, RULER + 0.5);
  drawSections(roll, piece, from, to);
  roll.fill(colours.line, GUTTER, RULER + FORM, roll.width, RULER + FORM + 0.5);
  drawChords(roll, piece, from, to);
  roll.fill(colours.line, GUTTER, TOP - 0.5, roll.width, TOP);
}

function drawSections(roll, { sections, length }, from, to) {
  const { colours, pen } = roll,
    letters = [...new Set(sections.map(([, name]) => name[0]))];
  sections.forEach(([tick, name], i) => {
    const end = sections[i + 1]?.[0] ?? length;
    if (end < from || tick > to) return;
    const x = roll.x(tick),
      middle = RULER + FORM / 2 + 0.5;
    pen.globalAlpha = 0.16 + 0.14 * ((letters.indexOf(name[0]) * 2) % 3);
    roll.fillBox(colours.accent, x + 1, RULER + 2.5, roll.x(end) - 1, RULER + FORM - 1.5, 4);
    pen.globalAlpha = 1;
    roll.text(colours.ink, name, Math.max(x, GUTTER) + 8, middle, {
      weight: 600,
      room: roll.x(end) - Math.max(x, GUTTER) - 8,
    });
  });
}

function drawChords(roll, { chords, length }, from, to) {
  const { colours } = roll,
    middle = TOP - CHORDS / 2;
  chords.forEach(([tick, name], i) => {
    const end = chords[i + 1]?.[0] ?? Math.max(length, tick + 4 * QUARTER);
    if (end < from || tick > to) return;
    const x = roll.x(tick),
      playing = roll.studio.cursor >= tick && roll.studio.cursor < end && roll.studio.playing;
    roll.fill(colours.bar, x, RULER + FORM + 5, x + 1, TOP - 5);
    roll.text(playing ? colours.accent : name === "N.C." ? colours.soft : colours.ink, name, x + 5, middle, {
      size: 12,
      weight: playing ? 700 : 500,
      room: roll.x(end) - x - 4,
    });
  });
}

export function drawCursor(roll) {
  const { studio, colours, pen, ratio } = roll,
    x = roll.x(studio.cursor);
  if (x < GUTTER - 8) return;
  roll.fill(colours.ink, x - 0.6, RULER - 2, x + 0.6, roll.height);
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

export function drawKeys(roll) {
  const { colours, studio, row } = roll,
    right = GUTTER - 1;
  roll.clip([[0, TOP, right, roll.bottom]], () => {
    roll.fill(colours.white, 0, TOP, right, roll.bottom);
    for (let pitch = roll.pitchAt(roll.bottom); pitch <= roll.pitchAt(TOP); pitch++) {
      const y = roll.y(pitch),
        lit = studio.sounding?.has(pitch),
        middle = y + row / 2;
      if (isBlack(pitch)) {
        if (row >= 4) roll.fill(colours.key, 0, middle - 0.3, right, middle + 0.3);
        roll.fillBox(lit ? colours.accent : colours.black, -3, y + 0.5, right * 0.62, y + row - 0.5, 2);
        continue;
      }
      if (lit)
        roll.fill(colours.accent, isBlack(pitch - 1) || isBlack(pitch + 1) ? right * 0.62 : 0, y, right, y + row);
      if (pitch % 12 === 0 || pitch % 12 === 5) roll.fill(colours.key, 0, y + row - 0.5, right, y + row);
      if (pitch % 12 === 0 && row * 12 > 20)
        roll.text("#4a4d55", pitchName(pitch), right - 5, middle, {
          size: clamp(row - 2, 8, 11),
          weight: 500,
          align: "right",
        });
    }
  });
  const name = (lane, y) => roll.text(colours.soft, t(`lane.${lane}`), GUTTER - 8, y, { size: 10, align: "right" });
  name("form", RULER + FORM / 2 + 0.5);
  name("chords", TOP - CHORDS / 2 + 0.5);
  if (roll.velocity) name("velocity", roll.bottom + 14);
  roll.fill(colours.line, right, 0, right + 1, roll.height);
}
