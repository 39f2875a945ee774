/** The field in which a chord or a section is written. */
import * as edit from "./document.js";
import { $, el } from "./dom.js";
import { label, t } from "./i18n.js";
import { GUTTER } from "./viewport.js";

const KINDS = ["", "m", "7", "maj7", "m7", "dim", "sus4", "6", "m7b5"];
const NAMES = {
  chords: [..."CDEFGAB"].flatMap((root) => KINDS.map((kind) => root + kind)).concat("N.C."),
  sections: [..."ABCD"],
};

let open = 0; // the tick of the field

/** Puts the field at its tick, or at the edge that is nearest to it. */
export function moveLane({ roll }) {
  $("lane-editor").style.left = `${Math.max(GUTTER, Math.min(roll.x(open), roll.width - 150))}px`;
}

/** Opens the field again with what the server refused of the lanes, `[[lane, tick, text]]`. */
export function correctLane(studio, entries) {
  const found = entries.find(([lane]) => lane in NAMES);
  if (found && $("lane-editor").hidden && studio.editable && !studio.drafting) editLane(studio, ...found);
}

/** Opens the field at a tick of a lane ("chords" or "sections"); `wrong`: what was written there and is refused. */
export function editLane(studio, lane, tick, wrong = null) {
  if (!studio.editable) return studio.refuse();
  const form = $("lane-editor"),
    input = $("lane-text"),
    before = studio.piece[lane].find(([at]) => at === tick)?.[1] ?? "";
  $("lane-names").replaceChildren(...NAMES[lane].map((name) => el("option", { value: name })));
  label(input, t(`lane.${lane}.edit`));
  input.value = wrong ?? before;
  input.setAttribute("aria-invalid", wrong !== null);
  input.oninput = () => input.setAttribute("aria-invalid", false);
  form.hidden = false;
  open = tick;
  moveLane(studio);
  form.style.top = lane === "chords" ? "44px" : "22px";
  const done = (keep) => {
    if (form.hidden) return;
    form.hidden = true;
    $("roll-box").focus({ preventScroll: true });
    const text = input.value.trim(),
      name = text || "–";
    if (!keep || text === before || text === wrong) return;
    studio.commit(lane, edit.setLane(studio.piece, lane, tick, text), { name });
  };
  form.onsubmit = (event) => (event.preventDefault(), done(true));
  input.onblur = () => done(true);
  input.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Escape") done(false);
    if (event.key !== "Tab") return;
    event.preventDefault();
    done(true);
    const at = edit.bars(studio.piece).find((bar) => bar.tick > tick).tick;
    studio.roll.reveal(at);
    editLane(studio, lane, at);
  };
  input.focus();
  input.select();
}
