/** What the controls around the roll show. */
import { minutes } from "../player/notes.js";
import { showHistory } from "./dialogs.js";
import * as edit from "./document.js";
import { $, press, setIcon } from "./dom.js";
import { fileOf } from "./files.js";
import { keyName, label, t } from "./i18n.js";

const METERS = ["4/4", "3/4", "2/4", "6/8", "12/8", "6/4", "5/4", "3/2"];
const OF_REGION = ["region", "vary", "accompany"]; // modes that compose the bars of a region

export class View {
  lost = false; // the socket
  #under = null; // the note under the pointer

  constructor(studio) {
    this.studio = studio;
  }

  setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    this.studio.roll.restyle();
    this.studio.strip.paint();
  }

  toggleTheme() {
    const theme = this.studio.theme === "dark" ? "light" : "dark";
    this.setTheme(theme);
    localStorage.setItem("fractalgen.theme", theme);
  }

  toggleHistory() {
    $("history-panel").hidden = !$("history-panel").hidden;
    this.studio.refresh();
  }

  togglePanel(open = !document.body.classList.contains("panel-open")) {
    document.body.classList.toggle("panel-open", open);
    $("settings-button").setAttribute("aria-expanded", open);
  }

  banner(lost) {
    const { queue, gone } = this.studio.project,
      n = queue.length;
    $("banner").hidden = !lost && !gone;
    $("rescue").hidden = !gone;
    if (lost || gone) $("banner-text").textContent = t(gone ? "gone" : n ? "lost.kept" : "lost", { n });
  }

  // ---- what is chosen, in words ----

  hovered(note) {
    if (note === this.#under) return;
    this.#under = note;
    this.#says();
  }

  #says() {
    $("says").textContent = this.#under ? this.describe(this.#under) : this.#summary();
  }

  #summary() {
    const { selection, region, shown } = this.studio;
    if (selection.size) return t("selected", { n: selection.size });
    return region ? t("region.is", { bars: edit.barRange(shown, region) }) : "";
  }

  describe(note) {
    const { piece } = this.studio;
    return t("note.says", {
      name: edit.pitchName(note.pitch, piece.key),
      ...edit.place(piece, note.start),
      steps: +(note.duration / edit.GRID).toFixed(2),
      velocity: note.velocity,
      more: `${note.hand >= 0 ? t(`note.hand${note.hand}`) : ""}${note.locked ? t("note.locked") : ""}`,
    });
  }

  // ---- all of it ----

  update() {
    const { studio } = this;
    studio.strip.update();
    this.#header();
    this.#composing();
    this.#tools();
    this.#transport();
    this.#facts();
    this.clock();
    this.floatRegion();
    studio.panel.refresh();
    showHistory(studio);
    studio.roll.measure();
  }

  #header() {
    const { project, composing } = this.studio,
      { queue, online, gone } = project;
    $("undo").disabled = !project.canUndo || composing;
    $("redo").disabled = !project.canRedo || composing;
    if (document.activeElement !== $("name")) $("name").value = project.name;
    document.title = `${project.name} – FractalGen`;
    const state = gone ? "deleted" : !online ? "offline" : queue.length ? "saving" : "saved";
    $("saved").textContent = t(state);
    $("saved").dataset.state = state;
    this.banner(!online || this.lost);
  }

  #composing() {
    const { studio } = this,
      { live, composing, shown } = studio,
      busy = studio.job !== null,
      measured = composing && live.total > 0;
    document.body.classList.toggle("composing", busy);
    $("compose").querySelector("span").textContent = this.#composeLabel();
    setIcon($("compose"), busy ? "stop" : "spark");
    $("progress").hidden = !busy;
    $("progress-text").textContent = this.#progress();
    if (measured) $("progress-bar").value = live.done / live.total;
    else $("progress-bar").removeAttribute("value");
    $("watch").hidden = busy || !studio.moving;
    $("welcome").hidden =
      busy || shown.notes.length > 0 || shown.chords.length > 0 || studio.drafting || studio.welcomed;
  }

  #composeLabel() {
    const { panel, region, piece, job } = this.studio,
      { mode } = panel;
    if (job !== null) return t("go.stop");
    if (region && OF_REGION.includes(mode)) return t(`go.${mode}.bars`, { bars: edit.barRange(piece, region) });
    if (mode === "region") return t("go.region");
    return t(`go.${mode}`, { n: mode === "continue" ? panel.adds : panel.bars });
  }

  #progress() {
    const { live, composing, composer } = this.studio;
    if (composing) return live.total ? t("progress", live) : t("planning");
    return composer.position ? t("queued", { n: composer.position }) : t("waiting");
  }

  #tools() {
    const { selection, tools, byHand } = this.studio;
    this.#says();
    for (const id of ["quantise", "lock"]) $(id).disabled = !selection.size;
    for (const button of $("tool-kinds").children) {
      const on = button.dataset.tool === tools.kind;
      button.setAttribute("aria-checked", on);
      button.tabIndex = on ? 0 : -1;
    }
    press($("hands"), byHand);
  }

  #transport() {
    const { player, keyboard, following, playing, shown, cursor } = this.studio;
    press($("loop"), player.looping);
    press($("click"), player.metronome);
    press($("pedal"), player.sustain);
    press($("follow"), following);
    press($("record"), keyboard.recording);
    setIcon($("play"), playing ? "pause" : "play");
    label($("play"), t(playing ? "pause" : "play"));
    if (document.activeElement !== $("tempo")) $("tempo").value = Math.round(edit.tempoAt(shown, cursor) * 10) / 10;
    const { beats, unit } = edit.bars(shown)[edit.barAt(shown, cursor)],
      meter = `${beats}/${unit}`,
      options = METERS.includes(meter) ? METERS : [meter, ...METERS];
    if (Array.from($("meter").options, ({ value }) => value).join() !== options.join())
      $("meter").replaceChildren(...options.map((name) => new Option(name)));
    $("meter").value = meter;
  }

  #facts() {
    const { shown } = this.studio,
      n = shown.notes.length,
      bars = edit.barCount(shown);
    const facts = n ? [t("bars.count", { n: bars }), t("notes.count", { n }), keyName(shown.key)] : [];
    const whole = facts.filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0")); // lines end at dots
    $("facts").textContent = whole.join("\u00a0· ");
    $("roll-box").setAttribute("aria-label", t("roll.says", { n, bars }));
  }

  clock() {
    const { shown, cursor } = this.studio,
      { bar, beat, step } = edit.place(shown, cursor);
    $("place").textContent = `${bar} . ${beat} . ${step}`;
    $("time").textContent = `${minutes(edit.seconds(shown, cursor))} / ${minutes(edit.seconds(shown, shown.length))}`;
  }

  /** The bar of the region stands above it, or below it, where there is room. */
  floatRegion() {
    const { region, roll, job, strip } = this.studio,
      bar = $("region-bar");
    bar.hidden = !region || job !== null || strip.shown !== null;
    if (bar.hidden) return;
    $("region-vary").hidden = $("region-drag").hidden = roll.width < 520;
    const { width, height } = bar.getBoundingClientRect(),
      middle = (roll.x(region.start) + roll.x(region.end)) / 2,
      most = Math.max(4, roll.width - width - 4);
    const above = roll.y(region.high - 1) - height - 10,
      below = roll.y(region.low) + roll.row + 10;
    const y = above > 76 ? above : below < roll.bottom - height - 8 ? below : 82;
    bar.style.left = `${edit.clamp(middle - width / 2, Math.min(62, most), most)}px`;
    bar.style.top = `${y}px`;
    $("region-drag").href = fileOf(this.studio, "mid", region).href;
  }
}
