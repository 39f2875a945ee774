/** Keyboard shortcuts, as in other programs for music. */
import { $ } from "./dom.js";
import * as edit from "./document.js";
import { showHelp } from "./dialogs.js";

const own = { INPUT: /./, SELECT: /./, TEXTAREA: /./, SUMMARY: /^( |Enter)$/, BUTTON: /^( |Enter)$/, A: /^Enter$/ }; // keys of the control

export function listen(studio) {
  const longer = (by) => studio.change("resize", (piece, ids) => edit.resize(piece, ids, by), { merge: "resize" });
  const louder = (by) =>
    studio.change("velocity", (piece, ids) => edit.setVelocity(piece, ids, ({ velocity }) => velocity + by), {
      merge: "velocity",
    });
  const moved = (done, other) => (done ? studio.tell() : other?.());
  const time = (by) =>
    moved(studio.nudge(by * studio.tools.grid, 0), () =>
      studio.seek(studio.tools.snap(studio.cursor) + by * studio.tools.grid),
    );
  const scroll = (by) => $("roll-box").scrollBy({ top: by });
  const flip = (object, name) => () => {
    object[name] = !object[name];
    studio.refresh();
  };

  const plain = {
    " ": () => studio.toggle(),
    Home: () => $("start").click(),
    End: () => {
      studio.seek(studio.shown.length);
      studio.roll.reveal(studio.cursor);
    },
    l: () => studio.toggleLoop(),
    m: flip(studio.player, "metronome"),
    p: flip(studio.player, "sustain"),
    ",": () => studio.bar(-1),
    ".": () => studio.bar(1),
    r: () => studio.compose({ mode: "region" }),
    a: () => studio.compose({ mode: "region", num_samples: 3 }),
    v: () => studio.compose({ mode: "vary" }),
    c: () => studio.compose({ mode: "continue" }),
    w: () => studio.replay(),
    1: () => studio.setTool("select"),
    2: () => studio.setTool("draw"),
    3: () => studio.setTool("erase"),
    Delete: () => studio.remove(),
    Backspace: () => studio.remove(),
    q: () => studio.quantise(),
    k: () => studio.toggleLock(),
    n: () => studio.step(1),
    N: () => studio.step(-1),
    Enter: () => studio.addNote(),
    ArrowLeft: () => time(-1),
    ArrowRight: () => time(1),
    ArrowUp: () => moved(studio.nudge(0, 1), () => scroll(-40)),
    ArrowDown: () => moved(studio.nudge(0, -1), () => scroll(40)),
    "+": () => studio.roll.zoom(1.4),
    "=": () => studio.roll.zoom(1.4),
    "-": () => studio.roll.zoom(1 / 1.4),
    0: () => studio.roll.fit(),
    h: () => studio.toggleHistory(),
    t: () => studio.toggleTheme(),
    "?": () => showHelp(),
    Escape: () => {
      if (studio.tools.cancel()) return;
      if (studio.job !== null) studio.stop();
      else if (studio.strip.shown !== null) studio.show(null);
      else {
        studio.setRegion(null);
        studio.select();
      }
    },
  };
  const shifted = {
    ArrowUp: () => moved(studio.nudge(0, 12)),
    ArrowDown: () => moved(studio.nudge(0, -12)),
    ArrowLeft: () => moved(longer(-studio.tools.grid)),
    ArrowRight: () => moved(longer(studio.tools.grid)),
  };
  const alt = { ArrowUp: () => moved(louder(4)), ArrowDown: () => moved(louder(-4)) };
  const control = {
    z: () => studio.undo(-1),
    Z: () => studio.undo(1),
    y: () => studio.undo(1),
    c: () => studio.copy(),
    x: () => studio.copy(true),
    v: () => studio.paste(),
    d: () => studio.duplicate(),
    a: () => studio.selectAll(),
    Enter: () => studio.compose(),
    s: () => studio.project.saved(),
  };

  document.addEventListener("keydown", (event) => {
    const { target, key } = event,
      command = event.ctrlKey || event.metaKey;
    if (document.querySelector("dialog[open], [popover]:popover-open") || event.isComposing) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && !/^(range|checkbox)$/.test(target.type);
    const taken =
      !command &&
      own[target.tagName]?.test(key) &&
      (typing || !/^(INPUT)$/.test(target.tagName) || /^Arrow|^ $|Home|End/.test(key));
    if (taken || (command && typing && target.tagName !== "SELECT" && key !== "Enter")) return;
    const small = key.length === 1 && !(key in plain) && !command ? key.toLowerCase() : key;
    const action = command ? control[key] : event.altKey ? alt[key] : (event.shiftKey && shifted[key]) || plain[small];
    if (!action) return;
    event.preventDefault();
    action();
  });
  // A button that is clicked with the mouse gives the space key back to the music; one reached by keyboard keeps it.
  document.addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
}
