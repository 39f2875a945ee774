/** Keyboard shortcuts, as in other programs for music. */
import { $ } from "./dom.js";
import * as edit from "./document.js";
import { showHelp } from "./dialogs.js";

// keys that belong to the control that has the focus
const own = { INPUT: /./, SELECT: /./, SUMMARY: /^( |Enter)$/, BUTTON: /^( |Enter)$/, A: /^Enter$/ };

/** What the keys do alone. */
function plainKeys(studio) {
  const { composer, editor, player, roll, strip, tools, transport, view } = studio;
  const scroll = (by) => $("roll-box").scrollBy({ top: by });
  /** Moves the selected notes, or else the cursor or the roll. */
  const arrow = (later, higher, other) => (editor.nudge(later, higher) ? editor.tell() : other());
  const time = (by) => arrow(by * tools.grid, 0, () => transport.seek(tools.snap(studio.cursor) + by * tools.grid));
  return {
    " ": () => transport.toggle(),
    Home: () => $("start").click(),
    End: () => {
      transport.seek(studio.shown.length);
      roll.reveal(studio.cursor);
    },
    l: () => transport.toggleLoop(),
    m: () => studio.flip(player, "metronome"),
    p: () => studio.flip(player, "sustain"),
    ",": () => transport.bar(-1),
    ".": () => transport.bar(1),
    r: () => composer.compose({ mode: "region" }),
    a: () => composer.compose({ mode: "region", num_samples: 3 }),
    v: () => composer.compose({ mode: "vary" }),
    c: () => composer.compose({ mode: "continue" }),
    w: () => composer.replay(),
    1: () => tools.setKind("select"),
    2: () => tools.setKind("draw"),
    3: () => tools.setKind("erase"),
    Delete: () => editor.remove(),
    Backspace: () => editor.remove(),
    q: () => editor.quantise(),
    k: () => editor.toggleLock(),
    n: () => editor.step(1),
    N: () => editor.step(-1),
    Enter: () => editor.addNote(),
    ArrowLeft: () => time(-1),
    ArrowRight: () => time(1),
    ArrowUp: () => arrow(0, 1, () => scroll(-40)),
    ArrowDown: () => arrow(0, -1, () => scroll(40)),
    "+": () => roll.zoom(1.4),
    "=": () => roll.zoom(1.4),
    "-": () => roll.zoom(1 / 1.4),
    0: () => roll.fit(),
    h: () => view.toggleHistory(),
    t: () => view.toggleTheme(),
    "?": () => showHelp(),
    Escape: () => {
      if (tools.cancel()) return;
      if (studio.job !== null) composer.stop();
      else if (strip.shown !== null) strip.show(null);
      else {
        studio.setRegion(null);
        studio.select();
      }
    },
  };
}

/** What they do with shift, with alt, and with control (or command). */
function keysWithOthers(studio) {
  const { composer, editor, tools } = studio;
  const changed = (done) => done && editor.tell();
  const longer = (by) =>
    changed(editor.change("resize", (piece, ids) => edit.resize(piece, ids, by), { merge: "resize" }));
  const louder = (by) => {
    const how = (piece, ids) => edit.setVelocity(piece, ids, ({ velocity }) => velocity + by);
    changed(editor.change("velocity", how, { merge: "velocity" }));
  };
  const shifted = {
    ArrowUp: () => changed(editor.nudge(0, 12)),
    ArrowDown: () => changed(editor.nudge(0, -12)),
    ArrowLeft: () => longer(-tools.grid),
    ArrowRight: () => longer(tools.grid),
  };
  const alt = { ArrowUp: () => louder(4), ArrowDown: () => louder(-4) };
  const control = {
    z: () => studio.undo(),
    Z: () => studio.redo(),
    y: () => studio.redo(),
    c: () => editor.copy(),
    x: () => editor.copy(true),
    v: () => editor.paste(),
    d: () => editor.duplicate(),
    a: () => editor.selectAll(),
    Enter: () => composer.compose(),
    s: () => studio.project.saved(),
  };
  return { shifted, alt, control };
}

export function listen(studio) {
  const plain = plainKeys(studio),
    { shifted, alt, control } = keysWithOthers(studio);
  document.addEventListener("keydown", (event) => {
    const { target, key } = event,
      command = event.ctrlKey || event.metaKey;
    if (document.querySelector("dialog[open], [popover]:popover-open") || event.isComposing) return;
    const typing = /^(INPUT|SELECT)$/.test(target.tagName) && !/^(range|checkbox)$/.test(target.type);
    const taken =
      !command &&
      own[target.tagName]?.test(key) &&
      (typing || target.tagName !== "INPUT" || /^Arrow|^ $|Home|End/.test(key));
    if (taken || (command && typing && target.tagName !== "SELECT" && key !== "Enter")) return;
    const small = key.length === 1 && !(key in plain) && !command ? key.toLowerCase() : key;
    const action = command ? control[key] : event.altKey ? alt[key] : (event.shiftKey && shifted[key]) || plain[small];
    if (!action) return;
    event.preventDefault();
    action();
  });
  // What is changed with the mouse gives the keys back to the music; what is reached by keyboard keeps them.
  let mouse = false;
  document.addEventListener("pointerdown", () => (mouse = true), true);
  document.addEventListener("keydown", () => (mouse = false), true);
  document.addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
  document.addEventListener(
    "change",
    ({ target }) => mouse && /^(select-one|range|checkbox)$/.test(target.type) && target.blur(),
  );
}
