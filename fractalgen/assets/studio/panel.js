/** What is asked of the model: the modes, and the settings that `GET /api/info` lists. */
import { barAt } from "./document.js";
import { $, el, icon } from "./dom.js";
import { flagName, has, keyName, t } from "./i18n.js";

const MODES = ["new", "continue", "region", "vary", "accompany"];
const LABELS = ["density", "polyphony", "register", "velocity"]; // shares of the training set, 0 to 1
const OWN = {
  // fields that stand in the open for each mode; the rest is folded away
  new: ["bars", "key", "tempo", "meter", "chords", "form", "lane"],
  continue: ["add", "lane", "chords"],
  region: ["hand", "lane"],
  vary: ["strength"],
  accompany: ["voice", "side", "lane"],
};
const ONLY = {
  // flags that belong to some modes only
  bars: "new",
  tempo: "new",
  meter: "new",
  strength: "vary",
  voice: "accompany",
  side: "accompany",
  form: "new continue",
  chords: "new continue",
  key: "new",
};
const HIDDEN = new Set(["model", "seconds", "condition_bars", "batch_size"]); // or set by the page itself
const ITERATIONS = ["quality", "num_iter_list", "mar_order", "batch_generate_size"]; // of models that have some
const SECTION = /(?:[A-Z][a-z]+|[A-Za-z])'*\s*(\d*)/g; // of a form: its name and, unless they are 8, its bars
const SHORT = { bars: 16, tempo: 120 };

/** Bars of chords as they are written: those between bar lines, or one for each chord. */
function barsOf(text) {
  const between = /[|｜]/.test(text) ? /[|｜]/ : /(?:\s|[,，、](?![^()\s]*\)))+/;
  return text.split(between).filter((part) => part.trim()).length;
}

/** Events: "change". */
export class Panel extends EventTarget {
  mode = "new";
  values = JSON.parse(localStorage.getItem("fractalgen.settings") ?? "{}");

  /** `piece()`: the piece as it is. */
  constructor(info, form, modes, piece) {
    super();
    Object.assign(this, { info, form, modes, piece });
    if (!info.models.some(({ name }) => name === this.values.model)) this.values.model = undefined;
    form.addEventListener("submit", (event) => event.preventDefault());
    modes.addEventListener("keydown", (event) => this.#arrows(event));
    this.build();
  }

  get model() {
    const { models } = this.info;
    return models.find(({ name }) => name === this.values.model) ?? models.find((one) => one.default) ?? models[0];
  }

  /** The body of a request, without the state: mode, flags, hand, lane. */
  request(region) {
    const { mode, values } = this,
      flags = { model: this.model?.name };
    for (const { name, type } of this.info.flags) {
      const value = values[name];
      if (value === undefined || !this.#offered(name)) continue;
      if (type === "list")
        flags[name] = String(value)
          .split(/[\s;]+/)
          .filter(Boolean);
      else flags[name] = /int|float/.test(type) ? Number(value) : value;
    }
    const lane = OWN[mode].includes("lane") && this.lane && !flags.chords;
    if (lane && mode === "new" && !flags.form) flags.bars ??= this.bars;
    const body = { mode, flags, num_samples: Number(values.samples ?? 1) };
    if (region && mode !== "new" && mode !== "continue") body.region = region;
    if (mode === "region" && values.hand !== undefined) body.hand = Number(values.hand);
    return lane ? { ...body, lane } : body;
  }

  /** Whether the chord lane is followed: unless it is said otherwise, but a new piece only where there are no notes. */
  get lane() {
    const { notes, chords } = this.piece();
    return this.values[`lane ${this.mode}`] ?? (chords.length > 0 && (this.mode !== "new" || !notes.length));
  }

  /** Bars of a new piece: as asked for, those of the form, of the chords if there are more, or of the chord lane. */
  get bars() {
    const { bars, form, chords } = this.values,
      piece = this.piece(),
      model = this.model?.bars ?? SHORT.bars;
    if (bars) return Number(bars);
    if (form && this.#offered("form"))
      return [...form.matchAll(SECTION)].reduce((sum, [, count]) => sum + Number(count || 8), 0) || model;
    if (chords && this.#offered("chords")) return Math.max(model, barsOf(chords));
    return this.lane && !chords && piece.chords.length ? barAt(piece, piece.chords.at(-1)[0]) + 1 : model;
  }

  get adds() {
    return Number(this.values.add ?? 4);
  }

  /** Boxes that follow the piece. */
  refresh() {
    if ($("flag-lane")) $("flag-lane").checked = this.lane;
  }

  set(name, value) {
    if (value?.trim) value = value.trim();
    if (value === undefined || value === "") delete this.values[name];
    else this.values[name] = value;
    localStorage.setItem("fractalgen.settings", JSON.stringify(this.values));
    this.dispatchEvent(new Event("change"));
  }

  setMode(mode) {
    if (mode === this.mode) return;
    this.mode = mode;
    this.build();
    this.dispatchEvent(new Event("change"));
  }

  #arrows(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.setMode(MODES[(MODES.indexOf(this.mode) + by + MODES.length) % MODES.length]);
    this.modes.querySelector("[aria-checked=true]").focus();
  }

  #offered(name) {
    const { model, mode } = this;
    if (ONLY[name] && !ONLY[name].includes(mode)) return false;
    if (["chords", "form", "plan_temperature"].includes(name)) return Boolean(model?.plans);
    if ([...LABELS, "style", "key"].includes(name)) return Boolean(model?.labels && name in model.labels);
    if (ITERATIONS.includes(name)) return Boolean(model?.iterations);
    return !(name === "meter" && model && !(model.meters?.length > 1));
  }

  build() {
    const { info, form, modes, mode } = this;
    modes.replaceChildren(
      ...MODES.map((name) =>
        el("button", {
          type: "button",
          role: "radio",
          id: `mode-${name}`,
          "aria-checked": name === mode,
          tabIndex: name === mode ? 0 : -1,
          textContent: t(`mode.${name}`),
          onclick: () => this.setMode(name),
        }),
      ),
    );
    const flags = new Map(
      info.flags.filter(({ name }) => !HIDDEN.has(name) && this.#offered(name)).map((flag) => [flag.name, flag]),
    );
    const main = OWN[mode].filter((name) => flags.has(name) || ["add", "hand", "lane"].includes(name));
    const character = [...LABELS, "style"].filter((name) => flags.has(name));
    const rest = [...flags.keys()].filter((name) => !main.includes(name) && !character.includes(name));
    const fields = (names) => names.map((name) => this.#field(name, flags.get(name)));
    form.replaceChildren(
      el("p", { className: "hint", textContent: t(`mode.${mode}.help`) }),
      ...(info.models.length > 1 ? [this.#model()] : []),
      el("div", { className: "pairs" }, ...fields(main)),
      ...(character.length ? [this.#fold("character", fields(character), true)] : []),
      this.#fold("advanced", fields(rest), false),
      el("button", { type: "button", className: "text reset", textContent: t("reset"), onclick: () => this.reset() }),
    );
  }

  /** A setting is as it was at first. */
  forget(name) {
    if (this.values[name] === undefined) return;
    this.set(name);
    this.build();
  }

  reset() {
    const { model } = this.values;
    this.values = model ? { model } : {};
    this.set("model", model);
    this.build();
  }

  #fold(name, content, open) {
    const kept = sessionStorage.getItem(`fold.${name}`);
    const fold = el(
      "details",
      { open: kept === null ? open : kept === "true" },
      el("summary", {}, el("span", { textContent: t(`fold.${name}`) }), icon("down", "small")),
      ...content,
    );
    fold.addEventListener("toggle", () => sessionStorage.setItem(`fold.${name}`, fold.open));
    return fold;
  }

  #model() {
    const options = this.info.models.map(({ name }) => new Option(name, name, false, name === this.model.name));
    const onchange = ({ target }) => {
      this.set("model", target.value);
      this.build();
    };
    const select = el("select", { id: "flag-model", onchange }, ...options);
    return this.#row("model", select, this.model.description);
  }

  #row(name, control, help = "", wide = false) {
    return el(
      "div",
      { className: `row ${wide ? "wide" : ""}`, title: help },
      el("label", { htmlFor: control.id, textContent: flagName(name) }),
      control,
    );
  }

  #field(name, flag) {
    if (name === "lane") return this.#check(name, this.lane, t("flag.lane.help"), `lane ${this.mode}`);
    if (LABELS.includes(name) || name === "strength") return this.#slider(name, flag);
    if (flag?.type.includes("bool")) return this.#check(name, this.values[name] ?? flag.default, flag.help);
    const options = this.#options(name, flag),
      control = { id: `flag-${name}`, onchange: ({ target }) => this.set(name, target.value) };
    if (!options) return this.#input(name, flag, control);
    const chosen = String(this.values[name] ?? "");
    const items = options.map(([text, value]) => new Option(text, value, false, chosen === String(value)));
    return this.#row(name, el("select", control, ...items), flag?.help);
  }

  /** What a field offers to choose from, `[[text, value]]`; undefined where it is written. */
  #options(name, flag) {
    const { labels, meters } = this.model ?? {};
    const pairs = (values, text = (value) => value) => values.map((value) => [text(value), value]);
    switch (name) {
      case "hand":
        return Object.entries({ both: "", right: 0, left: 1 }).map(([hand, value]) => [t(`hand.${hand}`), value]);
      case "key":
        return [[t("any"), ""], ...pairs(labels.key ?? [], keyName)];
      case "style":
        return [[t("any"), ""], ...pairs(labels.style)];
      case "meter":
        return [[t("default"), ""], ...pairs(meters)];
    }
    const text = (choice) => (has(`choice.${choice}`) ? t(`choice.${choice}`) : choice);
    return flag?.choices && [[t("default"), ""], ...pairs(flag.choices, text)];
  }

  #input(name, flag, control) {
    if (name === "add") {
      const bars = { type: "number", min: 1, max: 64, value: this.adds };
      return this.#row(name, el("input", { ...control, ...bars }));
    }
    const number = /int|float/.test(flag.type),
      wide = ["chords", "form", "voice"].includes(name) || !number;
    const example = has(`example.${name}`) ? t(`example.${name}`) : (flag.default ?? SHORT[name] ?? "");
    const input = el("input", {
      ...control,
      type: number ? "number" : "text",
      value: this.values[name] ?? "",
      placeholder: Array.isArray(example) ? example.join(" ") : String(example),
      spellcheck: false,
      ...(number ? { step: flag.type.includes("float") ? "any" : "1", min: flag.low ?? "", max: flag.high ?? "" } : {}),
    });
    return this.#row(name, input, flag.help, wide);
  }

  #check(name, on, help, key = name) {
    const box = el("input", {
      id: `flag-${name}`,
      type: "checkbox",
      checked: on,
      onchange: ({ target }) => this.set(key, target.checked),
    });
    return el(
      "div",
      { className: "row check wide", title: help ?? "" },
      box,
      el("label", { htmlFor: box.id, textContent: flagName(name) }),
    );
  }

  /** A share; untouched it is left to the model. */
  #slider(name, flag) {
    const free = name === "strength" ? (flag.default ?? 0.3) : undefined;
    const output = el("button", { type: "button", className: "auto", title: t("auto.help") });
    const slider = el("input", {
      id: `flag-${name}`,
      type: "range",
      min: 0.05,
      max: name === "strength" ? 1 : 0.95,
      step: 0.05,
      oninput: () => show(slider.value),
      onchange: () => this.set(name, slider.value),
    });
    const show = (value) => {
      slider.value = value ?? free ?? 0.5;
      slider.classList.toggle("free", value === undefined && free === undefined);
      output.textContent =
        value === undefined && free === undefined ? t("auto") : `${Math.round((value ?? free) * 100)} %`;
      slider.setAttribute("aria-valuetext", output.textContent);
      output.setAttribute("aria-label", `${t(`flag.${name}`)}: ${output.textContent}`);
    };
    output.onclick = () => (this.set(name, undefined), show(undefined));
    show(this.values[name]);
    const row = this.#row(name, slider, flag?.help, true);
    row.classList.add("slider");
    row.insertBefore(output, slider);
    return row;
  }
}
