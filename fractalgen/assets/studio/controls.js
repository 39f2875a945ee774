/** What the controls of the page do, and what the page does when the music or the connection changes. */
import * as dialogs from "./dialogs.js";
import { toast } from "./dialogs.js";
import * as edit from "./document.js";
import { $ } from "./dom.js";
import { acceptDrops, download, draggable, fillTakeMenu, newProject, take } from "./files.js";
import * as i18n from "./i18n.js";
import { t } from "./i18n.js";
import { correctLane, moveLane } from "./lanes.js";
import { KINDS } from "./tools.js";

const GRIDS = [
  ["1/4", 480],
  ["1/8", 240],
  ["1/8 T", 160],
  ["1/16", 120],
  ["1/16 T", 80],
  ["1/32", 60],
];

export function connect(studio) {
  listenToParts(studio);
  listenToServer(studio);
  for (const [id, action] of Object.entries({
    ...pageButtons(studio),
    ...musicButtons(studio),
    ...regionButtons(studio),
  }))
    $(id).addEventListener("click", () => action());
  connectFields(studio);
  connectTools(studio);
  connectMenus(studio);
  connectPage(studio);
  acceptDrops(studio);
}

// ---- events of the parts ----

function listenToParts(studio) {
  const { project, player, keyboard, roll, view } = studio;
  const refresh = () => studio.refresh();
  project.addEventListener("change", refresh);
  project.addEventListener("status", () => {
    if (project.gone) {
      studio.job = null;
      studio.socket.close();
    }
    refresh();
  });
  project.addEventListener("refused", ({ detail }) => {
    toast(detail.message, "error");
    if (detail.alone) correctLane(studio, detail.wrong);
  });
  player.addEventListener("frame", () => {
    view.clock();
    if (studio.following && studio.playing) roll.reveal(studio.cursor);
    roll.invalidate();
  });
  player.addEventListener("state", refresh);
  player.addEventListener("silent", () => toast(t("silent")));
  keyboard.addEventListener("change", refresh);
  keyboard.addEventListener("recorded", ({ detail }) => {
    const { piece, ids } = edit.add(studio.piece, detail);
    studio.commit("record", piece, { n: ids.size });
  });
  roll.scroller.addEventListener("scroll", () => {
    view.floatRegion();
    moveLane(studio);
  });
}

function listenToServer(studio) {
  const { project, socket, view } = studio;
  socket.addEventListener("message", ({ detail }) => studio.composer.hear(detail));
  socket.addEventListener("lost", () => {
    view.lost = true;
    studio.refresh();
  });
  socket.addEventListener("open", () => {
    if (view.lost) {
      if (studio.job) studio.job = null; // what is still composed is told again; "" is still to be asked for
      project.back();
      project.refresh().catch(studio.complain);
    }
    view.lost = false;
    studio.refresh();
  });
}

// ---- buttons: what each id does ----

function pageButtons(studio) {
  const { composer, roll, tools, view } = studio;
  const fromProjects = (action) => () => {
    $("projects-dialog").close();
    action();
  };
  return {
    undo: () => studio.undo(),
    redo: () => studio.redo(),
    history: () => view.toggleHistory(),
    help: dialogs.showHelp,
    theme: () => view.toggleTheme(),
    projects: () => dialogs.showProjects(studio),
    in: () => roll.zoom(1.4),
    out: () => roll.zoom(1 / 1.4),
    fit: () => roll.fit(),
    "settings-button": () => view.togglePanel(),
    "welcome-compose": () => composer.compose({ mode: "new" }),
    "welcome-file": () => $("file").click(),
    "welcome-draw": () => {
      studio.welcomed = true;
      tools.setKind("draw");
    },
    "new-project": fromProjects(() => newProject(studio)),
    "open-file": fromProjects(() => $("file").click()),
    rescue: () => studio.rescue(),
    language: () => {
      i18n.toggle();
      studio.panel.build();
      fillSelects(studio);
      studio.refresh();
    },
  };
}

function musicButtons(studio) {
  const { composer, editor, player, roll, transport, view } = studio;
  return {
    play: () => transport.toggle(),
    start: () => {
      transport.seek(0);
      roll.reveal(0);
    },
    record: () => transport.record(),
    loop: () => transport.toggleLoop(),
    click: () => studio.flip(player, "metronome"),
    pedal: () => studio.flip(player, "sustain"),
    follow: () => studio.flip(studio, "following"),
    hands: () => studio.flip(studio, "byHand"),
    watch: () => composer.replay(),
    quantise: () => editor.quantise(),
    lock: () => editor.toggleLock(),
    compose: () => {
      view.togglePanel(false);
      composer.compose();
    },
  };
}

function regionButtons(studio) {
  const { composer, editor, player, transport } = studio;
  return {
    "region-compose": () => composer.compose({ mode: "region" }),
    "region-three": () => composer.compose({ mode: "region", num_samples: 3 }),
    "region-vary": () => composer.compose({ mode: "vary" }),
    "region-lock": () => editor.toggleLock(),
    "region-loop": () => {
      transport.toggleLoop();
      if (player.looping) player.play(studio.loop.start);
    },
    "region-close": () => {
      studio.setRegion(null);
      studio.select();
    },
  };
}

// ---- fields, tools, menus ----

export function fillSelects({ tools, panel }) {
  const chosen = Number(panel.values.samples ?? 1);
  $("grid").replaceChildren(...GRIDS.map(([name, ticks]) => new Option(name, ticks, false, ticks === tools.grid)));
  $("samples").replaceChildren(...[1, 2, 3, 4].map((n) => new Option(t("samples.n", { n }), n, false, n === chosen)));
  i18n.translate();
}

function connectFields(studio) {
  const { project, player, tools } = studio;
  const changed = (id, action) => $(id).addEventListener("change", ({ target }) => action(target.value));
  changed("grid", (ticks) => (tools.grid = +ticks));
  changed("samples", (n) => studio.panel.set("samples", n));
  changed("tempo", (text) => {
    const bpm = edit.clamp(+text || 120, 20, 400);
    studio.commit("tempo", edit.setTempo(studio.piece, studio.cursor, bpm), { bpm });
  });
  changed("meter", (meter) =>
    studio.commit("meter", edit.setMeter(studio.piece, studio.cursor, ...meter.split("/").map(Number)), { meter }),
  );
  changed("name", (name) =>
    project
      .rename(name.trim() || project.name)
      .catch(studio.complain)
      .finally(() => studio.refresh()),
  );
  for (const id of ["name", "tempo"])
    $(id).addEventListener("keydown", ({ key }) => /Enter|Escape/.test(key) && $(id).blur());
  $("volume").addEventListener("input", ({ target }) => player.setVolume(+target.value));
  $("file").addEventListener("change", async ({ target }) => {
    await take(studio, target.files[0]);
    target.value = "";
  });
}

function connectTools({ tools }) {
  const box = $("tool-kinds");
  box.addEventListener("click", ({ target }) => tools.setKind(target.closest("button")?.dataset.tool));
  box.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.stopPropagation();
    tools.setKind(KINDS[(KINDS.indexOf(tools.kind) + by + KINDS.length) % KINDS.length]);
    box.querySelector(`[data-tool=${tools.kind}]`).focus();
  });
}

function connectMenus(studio) {
  $("more").addEventListener("click", () => {
    const box = $("more").getBoundingClientRect(),
      { left, top } = studio.roll.canvas.getBoundingClientRect();
    studio.editor.openMenu(box.left - left, box.bottom - top + 4);
  });
  const menu = $("take-menu");
  menu.addEventListener("beforetoggle", ({ newState }) => newState === "open" && fillTakeMenu(studio));
  menu.addEventListener("toggle", () => {
    const box = $("take").getBoundingClientRect();
    menu.style.top = `${box.bottom + 6}px`;
    menu.style.left = `${Math.max(8, box.right - menu.offsetWidth)}px`;
  });
  for (const one of [menu, $("edit-menu")]) one.addEventListener("keydown", dialogs.menuKeys);
  draggable(studio, $("region-drag"), () => studio.region);
  $("region-drag").addEventListener("click", (event) => {
    event.preventDefault();
    download(studio, "mid", studio.region);
  });
}

// ---- the page ----

function connectPage(studio) {
  const { project, player, view } = studio;
  for (const dialog of document.querySelectorAll("dialog"))
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  matchMedia("(prefers-color-scheme: light)").addEventListener(
    "change",
    ({ matches }) => localStorage.getItem("fractalgen.theme") ?? view.setTheme(matches ? "light" : "dark"),
  );
  window.addEventListener("hashchange", () => {
    const id = decodeURIComponent(location.hash.slice(1));
    if (id && id !== project.id) studio.openProject(id).catch(studio.complain);
  });
  window.addEventListener("beforeunload", (event) => {
    if (project.gone || (project.queue.length && project.online)) event.preventDefault();
  });
  document.addEventListener("pointerdown", () => player.wake(), { once: true });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the project
    $("roll-box").focus();
  });
}
