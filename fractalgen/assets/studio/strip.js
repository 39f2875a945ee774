/** Alternatives side by side: each is seen in small, heard, taken or put away. */
import { toast } from "./dialogs.js";
import { barStart } from "./document.js";
import { $, el, icon } from "./dom.js";
import { t } from "./i18n.js";
import { miniature } from "./shades.js";

export class Strip {
  shown = null; // the state whose piece the roll shows for the moment
  #group = null;

  constructor(studio) {
    this.studio = studio;
    this.root = $("strip");
    new ResizeObserver(() => this.paint()).observe(this.root);
  }

  /** Puts states away, for good. */
  #hide(...ids) {
    const kept = this.hidden.union(new Set(ids));
    localStorage.setItem(`fractalgen.hidden.${this.studio.project.id}`, JSON.stringify([...kept]));
  }

  get hidden() {
    return new Set(JSON.parse(localStorage.getItem(`fractalgen.hidden.${this.studio.project.id}`) ?? "[]"));
  }

  /** States to choose from: children of the head that were composed together. */
  get choices() {
    const { states, head } = this.studio.project,
      children = [...states.values()].filter(({ parent }) => parent === head);
    const last = children.findLast(({ group }) => group != null)?.group;
    const group = children.filter((state) => last !== undefined && state.group === last);
    const { hidden } = this;
    return group.length > 1 ? group.filter(({ id }) => !hidden.has(id)) : [];
  }

  /** While several are composed, their number; afterwards what can be chosen. */
  update() {
    if (this.shown !== null && !this.choices.some(({ id }) => id === this.shown)) this.shown = null; // the head moved
    const { live, composing } = this.studio,
      count = composing && live.num_samples > 1 ? live.num_samples : 0;
    const choices = count ? Array.from({ length: count }, (_, sample) => ({ sample })) : composing ? [] : this.choices;
    const key = JSON.stringify([
      choices.map(({ id, sample }) => id ?? `s${sample}`),
      this.shown,
      live?.shownSample,
      document.documentElement.lang,
    ]);
    this.root.hidden = !choices.length;
    if (key === this.#group) return;
    this.#group = key;
    this.root.replaceChildren(
      ...choices.map((choice, i) => this.#card(choice, String.fromCharCode(65 + i))),
      choices.length && !count
        ? el("button", { className: "text dismiss", textContent: t("strip.dismiss"), onclick: () => this.dismiss() })
        : "",
    );
    this.paint();
  }

  /** The roll shows a state for the moment, or the piece (null) again. */
  async show(id) {
    if (id !== null) await this.studio.project.load(id);
    this.shown = id;
    this.studio.select();
  }

  /** The roll shows one of the samples that are being composed. */
  showSample(sample) {
    const { live } = this.studio;
    live.shownSample = sample;
    live.frontier = Math.max(0, ...live.samples[sample].patches.map(({ tick }) => tick));
    this.studio.refresh();
  }

  async audition(id) {
    await this.show(id);
    const { piece, region, player } = this.studio;
    player.play(region ? barStart(piece, region.start) : 0);
  }

  async accept(id) {
    await this.studio.go(id);
    toast(t("strip.accepted"));
  }

  reject(id) {
    this.#hide(id);
    this.show(this.shown === id ? null : this.shown);
  }

  dismiss() {
    this.#hide(...this.choices.map(({ id }) => id));
    this.show(null);
  }

  #card(choice, letter) {
    const { studio } = this,
      live = choice.sample !== undefined;
    const current = live ? studio.live.shownSample === choice.sample : this.shown === choice.id;
    const look = () => (live ? this.showSample(choice.sample) : this.show(current ? null : choice.id));
    const canvas = el("canvas", { data: live ? { sample: choice.sample } : { state: choice.id } });
    const name = t("strip.name", { letter });
    const button = (text, properties, ...content) => {
      const label = t(`strip.${text}`, { letter });
      return el("button", { title: label, "aria-label": label, ...properties }, ...content);
    };
    return el(
      "article",
      { className: `card ${current ? "current" : ""}`, "aria-label": name },
      el(
        "button",
        { className: "picture", "aria-label": t("strip.look", { letter }), "aria-pressed": current, onclick: look },
        canvas,
        el("b", { textContent: letter }),
      ),
      !live &&
        el(
          "div",
          { className: "tools" },
          button("listen", { onclick: () => this.audition(choice.id) }, icon("play")),
          button(
            "accept.help",
            { className: "text accept", onclick: () => this.accept(choice.id) },
            icon("check"),
            el("span", { textContent: t("strip.accept") }),
          ),
          button("reject", { onclick: () => this.reject(choice.id) }, icon("close")),
        ),
    );
  }

  async paint() {
    const { studio } = this;
    for (const canvas of this.root.querySelectorAll("canvas")) {
      const { sample, state } = canvas.dataset;
      const piece = sample !== undefined ? studio.live?.piece(+sample) : await studio.project.load(+state);
      if (piece) miniature(canvas, piece, studio.theme, studio.focus);
    }
  }
}
