/** Colours of notes from soft to loud, and a piece in small. */
import { clamp } from "./document.js";

const SHADES = 32;
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
