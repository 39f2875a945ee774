/* Notes and their names, and times. */

export const HOLD = 1, ONSET = 2; // tokens: 0 silence, 1 hold, 2 + v onset with velocity bin v

const SHARPS = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const FLATS = ["C", "D♭", "D", "E♭", "E", "F", "G♭", "G", "A♭", "A", "B♭", "B"];

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const minutes = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
export const isBlack = (pitch) => SHARPS[(pitch + 12) % 12].length > 1;
export const pitchName = (pitch, flats = false) => (flats ? FLATS : SHARPS)[pitch % 12] + (Math.floor(pitch / 12) - 1);
